// Follows GET /events: as a stream, or by asking every two seconds where a proxy holds the stream back. Both resume after
// the last entry of the history that has arrived, so none is missed. A page that nobody sees closes its stream and resumes
// later: browsers allow only a few connections to one server.

import { getJson, urlOf } from "./api_client.js";

const KINDS = ["start", "model", "removed", "service", "workers", "traffic", "upload", "history", "gap"];
const FIRST_EVENT_MS = 15_000;
const POLL_MS = 2_000;
const SILENCE_MS = 20_000;
const ANSWER_MS = 10_000;
const DELIVERY_MS = 3_000;
const TRY_STREAM_AGAIN_MS = 60_000;
const HIDDEN_MS = 30_000;
const FAILURES = 3;
const WAITS_MS = [300, 1_000, 2_000, 4_000];

/**
 * How the page is kept up to date: not yet, by the stream, by asking, not at the moment, or not at all because nobody sees
 * it or nobody may read.
 * @typedef {"connecting" | "stream" | "polling" | "reconnecting" | "paused"} Mode
 */

/** Events of the server in the order in which they happen. */
export class EventStream {
  /**
   * @param {object} options
   * @param {(kind: string, data: any) => void} options.onEvent
   * @param {(mode: Mode) => void} options.onMode called when the mode changes
   */
  constructor({ onEvent, onMode }) {
    /** @type {Mode} */
    this.mode = "paused";
    /** @type {string | null} after which entry of the history to resume, as the server has named it */
    this.lastId = null;
    /** @private @type {number | null} the number of the newest entry that is known to exist */
    this.newest = null;
    /** @private */ this.onEvent = onEvent;
    /** @private */ this.onMode = onMode;
    /** @private */ this.isWanted = false;
    /** @private */ this.failures = 0;
    /** @private @type {EventSource | null} */ this.source = null;
    /** @private @type {AbortController | null} */ this.polls = null;
    /** @private */ this.timers = new Map();
    document.addEventListener("visibilitychange", () => this.followVisibility());
    addEventListener("online", () => this.isWanted && this.mode === "reconnecting" && this.open());
  }

  /** Begins, or begins again at once. */
  start() {
    this.isWanted = true;
    this.failures = 0;
    if (document.hidden) this.enter("paused");
    else this.open();
  }

  /** Ends until `start`. */
  stop() {
    this.isWanted = false;
    this.close();
    this.enter("paused");
  }

  /** @private */
  open() {
    this.close();
    this.enter(this.mode === "reconnecting" ? "reconnecting" : "connecting");
    this.listen();
    this.after("first", FIRST_EVENT_MS, () => this.poll());
  }

  /** @private */
  listen() {
    const source = new EventSource(urlOf(`events${this.since}`), { withCredentials: true });
    this.source = source;
    for (const kind of KINDS) source.addEventListener(kind, (message) => this.receive(message));
    source.onerror = () => this.fail();
  }

  /** @private */
  get since() {
    return this.lastId === null ? "" : `?since=${encodeURIComponent(this.lastId)}`;
  }

  /** @private */
  receive(message) {
    if (message.target !== this.source) return;
    this.cancel("first");
    this.stopPolling();
    this.failures = 0;
    this.enter("stream");
    this.after("silence", SILENCE_MS, () => this.checkSilence());
    this.deliver(message.type, JSON.parse(message.data), message.lastEventId);
  }

  /** @private */
  fail() {
    if (this.polls) {
      this.stopListening();
      return;
    }
    this.close();
    this.failures += 1;
    this.enter("reconnecting");
    if (this.failures >= FAILURES) this.poll();
    else this.after("again", WAITS_MS[this.failures - 1], () => this.open());
  }

  /**
   * The stream may be silent because nothing happens, or because its connection is dead: asks whether it owes an entry.
   * @private
   */
  async checkSilence() {
    const { source } = this;
    try {
      const { history } = await getJson("history?limit=1", { signal: AbortSignal.timeout(ANSWER_MS) });
      if (source !== this.source) return;
      const newest = history[0]?.id ?? 0;
      const owes = this.newest !== null && newest > this.newest;
      if (owes) this.after("silence", DELIVERY_MS, () => this.newest < newest && this.fail());
      else this.after("silence", SILENCE_MS, () => this.checkSilence());
      this.newest ??= newest;
    } catch {
      if (source && source === this.source) this.fail();
    }
  }

  /**
   * Asks until a stream brings something. One is tried beside it now and then, and at once when the server is back.
   * @private
   */
  async poll() {
    this.close();
    const polls = new AbortController();
    this.polls = polls;
    let tried = performance.now();
    let failed = 0;
    while (this.polls === polls) {
      try {
        const { events } = await getJson(`events${this.since}`, { signal: polls.signal, cache: "no-store" });
        if (this.polls !== polls) return;
        for (const { event, id, data } of events) this.deliver(event, data, id);
        this.enter("polling");
        if (failed > 0 || performance.now() - tried > TRY_STREAM_AGAIN_MS) {
          tried = performance.now();
          this.stopListening();
          this.listen();
          this.after("first", FIRST_EVENT_MS, () => this.stopListening());
        }
        failed = 0;
      } catch {
        if (this.polls !== polls) return;
        failed += 1;
        this.enter("reconnecting");
      }
      const wait = failed ? WAITS_MS[Math.min(failed, WAITS_MS.length) - 1] : POLL_MS;
      await new Promise((resolve) => this.after("poll", wait, resolve));
    }
  }

  /** @private */
  deliver(kind, data, id) {
    if (id) this.lastId = id;
    if (kind === "history") this.newest = data.id;
    this.onEvent(kind, data);
  }

  /** @private */
  followVisibility() {
    if (!this.isWanted) return;
    if (document.hidden) {
      this.after("hidden", HIDDEN_MS, () => {
        this.close();
        this.enter("paused");
      });
    } else {
      this.cancel("hidden");
      if (this.mode === "paused") this.open();
    }
  }

  /** @private */
  close() {
    this.stopListening();
    this.stopPolling();
    for (const name of [...this.timers.keys()]) if (name !== "hidden") this.cancel(name);
  }

  /** @private */
  stopListening() {
    this.source?.close();
    this.source = null;
  }

  /** @private */
  stopPolling() {
    this.polls?.abort();
    this.polls = null;
  }

  /** @private */
  enter(mode) {
    if (this.mode === mode) return;
    this.mode = mode;
    this.onMode(mode);
  }

  /** @private */
  after(name, milliseconds, work) {
    this.cancel(name);
    this.timers.set(name, setTimeout(work, milliseconds));
  }

  /** @private */
  cancel(name) {
    clearTimeout(this.timers.get(name));
    this.timers.delete(name);
  }
}
