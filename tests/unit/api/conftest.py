"""How these tests run."""

from __future__ import annotations

import hypothesis

# What takes long on a busy machine is not for that reason wrong.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")
