// Who is signed in and what that allows. The token itself is sent once and never kept: the server answers with a cookie
// that scripts cannot read.

import { getJson, send } from "./api_client.js";

const LONGEST_TIMER_MS = 2 ** 31 - 1;

/**
 * @typedef {object} SessionState as the server answers it
 * @property {"admin" | "read"} ui whether this page may change anything
 * @property {string[]} scopes what the caller may do now: "read", "predict", "admin"
 * @property {boolean} signed_in
 * @property {string | null} expires_at
 * @property {boolean} uploads whether versions can be published over HTTP
 * @property {string[]} needs the scopes that need a token
 */

/** The caller's session. Listeners are called after every change. */
export class Session {
  constructor() {
    /** @type {SessionState | null} null until the server has answered for the first time */
    this.state = null;
    /** True from the moment when a session ended by itself until the next sign-in. */
    this.hasEnded = false;
    /** @type {(reason?: string) => Promise<boolean>} shows the dialog; set by the page */
    this.requestSignIn = async () => false;
    /** @private */ this.listeners = new Set();
    /** @private */ this.expiry = 0;
  }

  /**
   * Says whether the caller may do what needs a scope: "read", "predict" or "admin".
   * @param {string} scope
   * @returns {boolean}
   */
  has(scope) {
    return Boolean(this.state?.scopes.includes(scope));
  }

  /** Whether anybody is signed in. */
  get isSignedIn() {
    return Boolean(this.state?.signed_in);
  }

  /** Whether signing in could open anything that is closed now. */
  get canSignIn() {
    const { state } = this;
    return Boolean(state) && !state.signed_in && state.needs.length > 0;
  }

  /**
   * Says why the caller may not do what needs a scope; null when they may.
   * @param {string} scope
   * @returns {string | null}
   */
  whyNot(scope) {
    if (this.has(scope) || !this.state) return null;
    if (scope === "admin" && this.state.ui === "read") {
      return "This page only shows: the server runs with server.ui = \"read\".";
    }
    if (this.isSignedIn) return `Your token does not open what needs the scope "${scope}".`;
    if (this.state.needs.includes(scope)) return `Sign in with a token that has the scope "${scope}".`;
    return `No token opens this here: security.${scope}_token is not set in settings.toml.`;
  }

  /**
   * Asks the server what the caller may do. Rejects with a Problem where it cannot be reached.
   * @returns {Promise<SessionState>}
   */
  async refresh() {
    return this.take(await getJson("ui/session", { cache: "no-store" }));
  }

  /**
   * Exchanges a token for a session. Rejects with a Problem where the token is not known.
   * @param {string} token
   * @returns {Promise<SessionState>}
   */
  async signIn(token) {
    const state = await send("POST", "ui/session", { token });
    this.hasEnded = false;
    return this.take(state);
  }

  /**
   * Ends the session.
   * @returns {Promise<SessionState>}
   */
  async signOut() {
    const answer = await send("DELETE", "ui/session");
    const state = answer ?? (await getJson("ui/session", { cache: "no-store" }));
    this.state = null; // it ends because somebody wants it to
    this.hasEnded = false;
    return this.take(state);
  }

  /**
   * Calls a listener after every change.
   * @param {(session: Session) => void} listener
   * @returns {() => void} ends that
   */
  subscribe(listener) {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  /** @private */
  take(state) {
    const before = this.state;
    if (before?.signed_in && !state.signed_in) this.hasEnded = true;
    this.state = state;
    this.watchExpiry();
    if (JSON.stringify(before) !== JSON.stringify(state)) for (const listener of [...this.listeners]) listener(this);
    return state;
  }

  /** @private */
  watchExpiry() {
    clearTimeout(this.expiry);
    if (!this.state?.expires_at) return;
    const left = Math.max(new Date(this.state.expires_at) - Date.now(), 0) + 1000;
    this.expiry = setTimeout(() => this.refresh().catch(() => {}), Math.min(left, LONGEST_TIMER_MS));
  }
}
