// Where a version runs and what it needs: environment, libraries, layers of the sandbox, memory, digest.

import { h } from "../dom.js";
import { formatBytes } from "../format.js";
import { commandLine } from "./command_line.js";
import { createFact } from "./signature_table.js";
import { toneMark } from "./state_mark.js";

/** Return the facts about one version of `GET /models/NAME`. */
export function createVersionFacts(version) {
  return h(
    "dl",
    { class: "fact-list" },
    createFact("Digest", version.digest === null ? null : commandLine(version.digest)),
    createFact("Engine", version.engine),
    createFact("Memory", version.memory_bytes === null ? null : formatBytes(version.memory_bytes)),
    createFact("Environment", describeEnvironment(version)),
    createFact("Why there", version.environment_reason),
    version.needs === null ? null : createNeeds(version.needs),
    createFact("Runs with", listLibraries(version.libraries)),
    createFact("Sandbox", version.sandbox === null ? null : createSandbox(version.sandbox)),
  );
}

function describeEnvironment(version) {
  if (version.environment === "own") return "the server's own";
  if (version.environment !== null) return version.environment;
  return version.environment_reason === null ? null : "none fits";
}

function createNeeds(needs) {
  const libraries = Object.entries(needs.libraries).map(([name, version]) => {
    const source = needs.sources[name];
    return h("li", null, `${name} ${version}`, source ? h("span", { class: "muted" }, ` (${source})`) : null);
  });
  return [
    createFact("Asks for", needs.environment === null ? null : `the environment '${needs.environment}'`),
    createFact("Trained with", needs.python === null ? null : `Python ${needs.python}`, libraries.length ? h("ul", null, libraries) : null),
    createFact("Names modules", needs.modules.join(", ")),
  ];
}

function listLibraries(libraries) {
  return Object.entries(libraries)
    .map(([name, version]) => `${name} ${version}`)
    .join(", ");
}

function createSandbox(sandbox) {
  const active = sandbox.active.map((layer) =>
    h("li", null, toneMark("good", layer.replaceAll("_", " "))),
  );
  const missing = Object.entries(sandbox.missing).map(([layer, why]) =>
    h("li", null, toneMark("warn", `no ${layer.replaceAll("_", " ")}`), ` ${why}`),
  );
  return h("ul", { class: "layers" }, active, missing);
}
