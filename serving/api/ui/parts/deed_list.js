// What an operator can do with a model now: each deed as one value, with the call and the command line it stands for.
// Pure: the documents of the server in, deeds out. The server decides in the end; what it would refuse is left out here.

import { pathOf } from "../api_client.js";
import { servingCommand } from "./command_line.js";

const REFUSED_STATES = new Set(["REJECTED", "QUARANTINED"]);

/**
 * @typedef {object} Deed
 * @property {string} id names the deed on the page
 * @property {string} label on its button
 * @property {string} about one sentence on what it does
 * @property {string} command the command line that does the same
 * @property {string} method of the HTTP call
 * @property {string} path of the HTTP call
 * @property {object} [body] of the HTTP call
 * @property {string} done what is said when it has succeeded
 * @property {{title: string, text: string}} [confirm] what is asked before; none for what harms nothing
 * @property {boolean} [isDestructive] whether it takes something out of service
 */

/** Return the deeds about the model as a whole. `model` is `GET /models/NAME`. */
export function listModelDeeds(model) {
  const deeds = [];
  const active = model.active?.version;
  if (canRollBack(model)) deeds.push(rollBack(model, active));
  if (model.pinned !== null) {
    deeds.push({
      id: "unpin",
      label: "Unpin",
      about: `Follow the newest valid version again, not only ${model.pinned}.`,
      ...call(["unpin", model.name], "DELETE", [model.name, "pin"]),
      done: `${model.name} is not pinned any more`,
    });
  }
  deeds.push(model.unloaded ? load(model) : unload(model));
  deeds.push({
    id: "refresh",
    label: "Look at the store",
    about: "Read the store now, instead of when it says that something has changed.",
    ...call(["refresh"], "POST", null),
    path: "refresh",
    done: "the server has looked at its store",
  });
  return deeds;
}

/** Return the deeds about one version. `version` is an entry of `model.versions`. */
export function listVersionDeeds(model, version) {
  const deeds = [];
  const name = version.version;
  if (canChoose(version) && model.pinned !== name) deeds.push(pin(model, name));
  if (isReleasable(version)) deeds.push(release(model, version));
  for (const [label, named] of Object.entries(model.labels)) {
    if (named === name) deeds.push(removeLabel(model, label, name));
  }
  return deeds;
}

/** Return the deeds about what the store does not hold: quarantines and labels of versions that are not listed. */
export function listOrphanDeeds(model) {
  const known = new Set(model.versions.map((version) => version.version));
  const labels = Object.entries(model.labels).filter(([, version]) => !known.has(version));
  const quarantined = model.quarantined.filter((one) => !known.has(one.version));
  return [
    ...labels.map(([label, version]) => removeLabel(model, label, version)),
    ...quarantined.map((one) => release(model, { ...one, is_quarantined: true, state: "QUARANTINED" })),
  ];
}

/** Return the deed that lets `label` name a version. */
export function setLabel(model, label, version) {
  const before = model.labels[label];
  return {
    id: `label-${label}`,
    label: "Label",
    about: `Let '${label}' name ${version}.`,
    ...call(["label", model.name, label, version], "PUT", [model.name, "labels", label], { version }),
    done: `'${label}' names ${model.name} ${version}`,
    confirm:
      before !== undefined && before !== version
        ? {
            title: `Move '${label}' from ${before} to ${version}?`,
            text: `Clients that ask for '${label}' get version ${version} as soon as it is loaded.`,
          }
        : undefined,
  };
}

/** Say whether an operator may pin or label a version. */
export function canChoose(version) {
  return !version.is_quarantined && !REFUSED_STATES.has(version.state);
}

/** Return the deeds about a rollout. `rollout` is `GET /models/NAME/rollout`. */
export function listRolloutDeeds(name, rollout) {
  const running = rollout.running;
  if (running === null) return rollout.is_stopped ? [resumeRollouts(name)] : [];
  const version = running.version;
  const deeds = [
    {
      ...steer(name, "promote", version),
      label: `Promote ${version}`,
      about: `Let ${version} answer every request from now on, proven or not.`,
      done: `${name} ${version} is promoted`,
      confirm: {
        title: `Promote ${version} now?`,
        text: `${version} answers every request from now on. The judge has not said yet that it is as good as ${running.against}; nothing compares them any more.`,
      },
    },
    running.is_held
      ? {
          ...steer(name, "resume", version),
          label: "Resume",
          about: "Go on with the steps.",
          done: `the rollout of ${name} ${version} goes on`,
        }
      : {
          ...steer(name, "hold", version),
          label: "Hold",
          about: `Keep the share at ${running.share}% until you resume. A version that is proven worse still goes back.`,
          done: `the rollout of ${name} ${version} is held where it is`,
        },
    {
      ...steer(name, "rollback", version),
      label: `Take ${version} back`,
      about: `${running.against} answers every request again, and ${version} goes into quarantine.`,
      done: `${name} ${version} is taken back`,
      isDestructive: true,
      confirm: {
        title: `Take ${version} back?`,
        text: `${running.against} answers every request again. ${version} goes into quarantine: it is not served again until you release it. No request fails.`,
      },
    },
  ];
  return deeds;
}

function resumeRollouts(name) {
  return {
    ...steer(name, "resume", null),
    label: "Let rollouts begin again",
    about: "Two versions in a row went back by themselves, so none begins until you say so.",
    done: `rollouts of ${name} may begin again`,
  };
}

function steer(name, action, version) {
  const words = ["rollout", name, action, ...(version === null ? [] : ["--version", version])];
  const body = version === null ? { action } : { action, version };
  return { id: `rollout-${action}`, ...call(words, "POST", [name, "rollout"], body) };
}

function rollBack(model, active) {
  return {
    id: "rollback",
    label: "Roll back",
    about: `Leave ${active} for the next best version.`,
    ...call(["rollback", model.name, "--from", active], "POST", [model.name, "rollback"], { version: active }),
    done: `${model.name} is rolled back from ${active}`,
    isDestructive: true,
    confirm: {
      title: `Roll ${model.name} back from ${active}?`,
      text: `The next best version takes over${describeNext(model, active)}. ${active} goes into quarantine: it is not served again until you release it. Requests in flight are still answered; none fails.`,
    },
  };
}

function describeNext(model, active) {
  const standby = model.versions.find((version) => version.version !== active && version.is_loaded);
  return standby === undefined ? "; it has to be loaded first, until then the present one answers" : `: ${standby.version}`;
}

function canRollBack(model) {
  const isAlternative = (version) => version.version !== model.active.version && canChoose(version);
  const isUnderWay = Boolean(model.rollout?.running);
  return model.active !== null && model.pinned === null && !isUnderWay && model.versions.some(isAlternative);
}

function pin(model, version) {
  const active = model.active?.version;
  const isKept = active === version;
  const change = isKept ? `${version} stays active` : `${version} replaces ${active ?? "nothing"} as soon as it is loaded`;
  return {
    id: "pin",
    label: "Pin",
    about: `Serve exactly ${version} until it is unpinned, also when newer ones arrive.`,
    ...call(["pin", model.name, version], "POST", [model.name, "pin"], { version }),
    done: `${model.name} is pinned to ${version}`,
    confirm: isKept
      ? undefined
      : {
          title: `Pin ${model.name} to ${version}?`,
          text: `${change}, and newer versions do not become active until you unpin it.${model.rollout?.running ? " It ends the rollout that is under way." : ""}`,
        },
  };
}

function isReleasable(version) {
  return version.is_quarantined || REFUSED_STATES.has(version.state) || version.state === "FAILED";
}

function release(model, version) {
  const name = version.version;
  return {
    id: "release",
    label: version.is_quarantined ? "Release" : "Evaluate again",
    about: version.is_quarantined
      ? `Lift the quarantine of ${name}, and evaluate it again.`
      : `Forget the verdict on ${name}, and evaluate it again.`,
    ...call(["release", model.name, name], "POST", [model.name, "versions", name, "release"]),
    done: `${model.name} ${name} is released`,
    confirm: version.is_quarantined
      ? {
          title: `Release ${name}?`,
          text: `${name} is evaluated again. If it passes every gate and is the newest, it becomes active.`,
        }
      : undefined,
  };
}

function removeLabel(model, label, version) {
  return {
    id: `unlabel-${label}`,
    label: `Remove label ${label}`,
    about: `Forget '${label}'; ${version} stays loaded only if something else needs it.`,
    ...call(["label", model.name, label, "--remove"], "DELETE", [model.name, "labels", label]),
    done: `'${label}' is removed from ${model.name}`,
    isDestructive: true,
    confirm: {
      title: `Remove the label '${label}'?`,
      text: `Clients that ask for '${label}' get an error (404) from now on.`,
    },
  };
}

function unload(model) {
  const active = model.active?.version;
  return {
    id: "unload",
    label: "Unload",
    about: "Take the model out of service until it is loaded again. Its files stay.",
    ...call(["unload", model.name], "POST", null),
    path: pathOf("v2", "repository", "models", model.name, "unload"),
    done: `${model.name} is unloaded`,
    isDestructive: true,
    confirm: {
      title: `Take ${model.name} out of service?`,
      text: `${active === undefined ? "No version is active now, and none is loaded" : `Requests in flight are answered by ${active}; every later one gets an error (503)`} until you load the model again. Also after a restart.`,
    },
  };
}

function load(model) {
  return {
    id: "load",
    label: "Load",
    about: "Put the model into service again: wait for the verdict on its newest version.",
    ...call(["load", model.name], "POST", null),
    path: pathOf("v2", "repository", "models", model.name, "load"),
    done: `${model.name} is loaded`,
  };
}

/** The command line and the call of a deed; `steps` are the parts of its path after ``/models``. */
function call(words, method, steps, body) {
  const path = steps === null ? "" : pathOf("models", ...steps);
  return { command: servingCommand(...words), method, path, body };
}
