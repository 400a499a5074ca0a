// What the server is and does now, as far as the stream has said. Views read it and subscribe to what changes.

import { CountWindow, ratesOf } from "./traffic_rates.js";

const MOST_HISTORY = 1_000;

/**
 * @typedef {object} ModelEntry an entry of GET /models/active, with the model's rollout
 * @property {string} name
 * @property {{version: string, digest: string, engine: string, environment: string, activated_at: string, note: string | null} | null} active
 * @property {{version: string, state: string} | null} target
 * @property {string | null} pinned
 * @property {Record<string, string>} labels
 * @property {boolean} unloaded
 * @property {string | null} problem
 * @property {{version: string, gate: string, reason: string, at: string} | null} last_failure
 * @property {{version: string, gate: string, evidence: string}[]} warnings
 * @property {{version: string, path: string | null}[]} quarantined
 * @property {{version: string | null, phase: string | null, share: number, is_held: boolean, verdict: string | null, reason: string, is_stopped: boolean} | null} rollout
 */

/**
 * Kinds that can be subscribed to: "start", "model" (ModelEntry), "removed" ({name}), "service", "workers", "traffic"
 * ({versions}), "upload", "history" (an entry), "gap" ({reason}), "connection" (the mode of the stream).
 * @typedef {(kind: string, data: any) => void} LiveListener
 */

/** The state of the server. Changed only by `apply`. */
export class LiveState {
  constructor() {
    /** @type {Map<string, ModelEntry>} in the order of names */
    this.models = new Map();
    /** @type {{store: any, state: any, ready: boolean, reason: string | null, sandbox: any, worker_problem: string | null, generation: number} | null} */
    this.service = null;
    /** @type {any[]} WorkerStatus by index; empty with one worker */
    this.workers = [];
    /** @type {Map<string, any>} UploadStatus by id, in the order in which they began */
    this.uploads = new Map();
    /** @type {any[]} the newest entries that have arrived by the stream, newest first */
    this.history = [];
    /** @type {string | null} */
    this.serverVersion = null;
    /** Whether a first whole state has arrived. */
    this.isKnown = false;
    /** @type {string} how the page is kept up to date: see event_stream.js */
    this.connection = "paused";
    /** @type {Date | null} when the last event came */
    this.heardAt = null;
    /** @private @type {Map<string, Map<string, CountWindow>>} */ this.windows = new Map();
    /** @private @type {number[]} */ this.bounds = [];
    /** @private */ this.clockOffset = 0;
    /** @private @type {Map<string, Set<LiveListener>>} */ this.listeners = new Map();
  }

  /**
   * Calls a listener after each change of these kinds, in the order in which they happen.
   * @param {string[]} kinds
   * @param {LiveListener} listener
   * @returns {() => void} ends that
   */
  subscribe(kinds, listener) {
    for (const kind of kinds) {
      if (!this.listeners.has(kind)) this.listeners.set(kind, new Set());
      this.listeners.get(kind).add(listener);
    }
    return () => {
      for (const kind of kinds) this.listeners.get(kind)?.delete(listener);
    };
  }

  /**
   * Rates of one version, or of all versions of a model, over the last ten seconds.
   * @param {string} model
   * @param {string} [version]
   * @returns {import("./traffic_rates.js").Rates}
   */
  rates(model, version) {
    const versions = this.windows.get(model);
    const windows = version === undefined ? [...(versions?.values() ?? [])] : [versions?.get(version)].filter(Boolean);
    return ratesOf(windows, this.now(), this.bounds);
  }

  /**
   * The counts of one version since the service began, null where none were sent.
   * @param {string} model
   * @param {string} version
   * @returns {import("./traffic_rates.js").Counts | null}
   */
  counts(model, version) {
    return this.windows.get(model)?.get(version)?.counts ?? null;
  }

  /**
   * Takes one event of the stream.
   * @param {string} kind
   * @param {any} data
   */
  apply(kind, data) {
    this.heardAt = new Date();
    const take = this[`take_${kind}`];
    if (take && take.call(this, data) === false) return;
    this.tell(kind, data);
  }

  /**
   * Takes the mode of the stream.
   * @param {string} mode
   */
  setConnection(mode) {
    this.connection = mode;
    this.tell("connection", mode);
  }

  /** Forgets everything: somebody else may read now. */
  clear() {
    for (const name of [...this.models.keys()]) this.forget(name);
    this.windows.clear();
    this.uploads.clear();
    this.history = [];
    this.workers = [];
    this.service = null;
    this.isKnown = false;
  }

  /** @private */
  now() {
    return performance.now() / 1000 + this.clockOffset;
  }

  /** @private */
  tell(kind, data) {
    for (const listener of [...(this.listeners.get(kind) ?? [])]) listener(kind, data);
  }

  /** @private */
  forget(name) {
    this.models.delete(name);
    this.windows.delete(name);
    this.tell("removed", { name });
  }

  /** @private */
  take_start(data) {
    this.serverVersion = data.server_version;
    this.isKnown = true;
    const named = new Set(data.models);
    for (const name of [...this.models.keys()]) if (!named.has(name)) this.forget(name);
  }

  /** @private */
  take_model(data) {
    const known = this.models.get(data.name);
    if (known && JSON.stringify(known) === JSON.stringify(data)) return false;
    this.models.set(data.name, data);
    return true;
  }

  /** @private */
  take_removed(data) {
    this.models.delete(data.name);
    this.windows.delete(data.name);
  }

  /** @private */
  take_service(data) {
    this.service = data;
  }

  /** @private */
  take_workers(data) {
    this.workers = data.workers;
  }

  /** @private */
  take_traffic(data) {
    const at = new Date(data.at) / 1000;
    this.clockOffset = at - performance.now() / 1000;
    if (data.bounds) this.bounds = data.bounds;
    for (const counts of data.versions) {
      if (!this.windows.has(counts.model)) this.windows.set(counts.model, new Map());
      const versions = this.windows.get(counts.model);
      if (!versions.has(counts.version)) versions.set(counts.version, new CountWindow());
      versions.get(counts.version).add(at, counts);
    }
  }

  /** @private */
  take_upload(data) {
    this.uploads.set(data.id, data);
  }

  /** @private */
  take_gap() {
    this.history = []; // numbers may begin again
  }

  /** @private */
  take_history(data) {
    if (this.history.some((entry) => entry.id === data.id)) return false;
    this.history.unshift(data);
    if (this.history.length > MOST_HISTORY) this.history.length = MOST_HISTORY;
    return true;
  }
}
