// One entry of the history as a sentence. Pure: text comes out as words and as names that are to stand out.

/** What a version does from a transition on; outcomes are those that somebody looks for. */
const TRANSITIONS = {
  DISCOVERED: "was discovered",
  STAGING: "is copied into the cache and hashed",
  LOADING: "is loaded in a host",
  VALIDATING: "goes through the gates",
  WARMING: "is warmed up",
  READY: "is ready",
  SHADOW: "gets copies of requests",
  CANARY: "answers a share of the requests",
  ACTIVE: "became active",
  DRAINING: "answers its last requests",
  RETIRED: "was retired",
  REJECTED: "was refused",
  FAILED: "failed",
  QUARANTINED: "went into quarantine",
};
const AGAIN = {
  DISCOVERED: "is to be looked at again",
  READY: "stands by",
};
const SPENT = {
  STAGING: "copied and hashed in",
  LOADING: "loaded in",
  VALIDATING: "through the gates in",
  WARMING: "warmed up in",
  ACTIVE: "was active for",
  SHADOW: "was a shadow for",
  CANARY: "was a canary for",
  DRAINING: "drained in",
};
const OUTCOMES = new Set(["ACTIVE", "REJECTED", "FAILED", "QUARANTINED", "SHADOW", "CANARY"]);

/** What an operator did: words before the name. */
const CALLS = {
  pin: "Pinned",
  unpin: "Unpinned from",
  rollback: "Rolled back from",
  release: "Released",
  unload: "Unloaded",
  load: "Loaded",
  label: "Set a label on",
  unlabel: "Removed a label from",
  rollout: "Steered the rollout of",
  upload: "Uploaded",
  "accept-state-loss": "Accepted the loss of state for",
};

/** Every event that the history may have, in the order in which a list of them is read. */
export const EVENTS = ["transition", ...Object.keys(CALLS)];

/**
 * @typedef {object} Sentence
 * @property {string} before words before the name
 * @property {string} name the model, and the version where there is one; with `isOfModel` only the version, if there is one
 * @property {string} after words after the name
 * @property {string | null} state the state that was entered
 * @property {boolean} isOutcome whether it is more than a step on the way
 * @property {string | null} spent words before the time that the state before took, null where that says nothing
 * @property {string | null} actor who did it, null for the server itself
 */

/**
 * Returns an entry as a sentence; with `isOfModel` for a place that is about its model alone.
 * @param {{model: string, version: string | null, before: string | null, after: string | null, actor: string, event: string}} entry
 * @param {{isOfModel?: boolean}} [options]
 * @returns {Sentence}
 */
export function sentenceOf({ model, version, before, after, actor, event }, { isOfModel = false } = {}) {
  const name = version === null ? model : isOfModel ? version : `${model} ${version}`;
  const by = actor === "system" ? null : actor;
  if (event !== "transition") {
    return { before: CALLS[event] ?? `${event}:`, name, after: "", state: null, isOutcome: true, spent: null, actor: by };
  }
  const isReturn = (after === "DISCOVERED" && before !== null) || (after === "READY" && before !== "WARMING");
  const words = (isReturn ? AGAIN[after] : undefined) ?? TRANSITIONS[after] ?? `is ${String(after).toLowerCase()} now`;
  return { before: "", name, after: words, state: after, isOutcome: OUTCOMES.has(after), spent: SPENT[before] ?? null, actor: by };
}
