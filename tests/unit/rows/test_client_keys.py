"""Who a client is, by a column of its first row, in all the shapes that rows come in."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from serving.rows.client_keys import find_key
from tests.fakes import NUMBERS
