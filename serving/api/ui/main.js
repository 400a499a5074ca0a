// Puts the page together: session, stream, address, the bar above, notices, and the view that the address names.

import * as api from "./api_client.js";
import { h, setChildren, setText } from "./dom.js";
import { EventStream } from "./event_stream.js";
import { LiveState } from "./live_state.js";
import { hashOf, navigate, watchPlaces } from "./router.js";
import { Session } from "./session.js";
import { fillTopBar } from "./top_bar.js";
import { banner } from "./parts/banner.js";
import { makeSignInDialog } from "./parts/sign_in_dialog.js";
import { timestamp, keepTimestamps } from "./parts/timestamp.js";

/**
 * What every view is given.
 * @typedef {object} Context
 * @property {LiveState} live
 * @property {typeof api} api
 * @property {Session} session
 * @property {(hash: string) => void} navigate goes to a hash of `hashOf`
 * @property {(text: string) => void} announce has a screen reader say something, when it is quiet
 */

/**
 * A module of `views/` exports `show`. It fills the container, whose first `h1` becomes the title of the page, and returns
 * what ends its subscriptions and timers.
 * @typedef {(container: HTMLElement, context: Context, parameters: {name: string | null, query: URLSearchParams}) => () => void} Show
 */

const VIEWS = new Map([
  ["", () => import("./views/models_view.js")],
  ["history", () => import("./views/history_view.js")],
  ["store", () => import("./views/store_view.js")],
  ["workers", () => import("./views/workers_view.js")],
]);
const showModel = () => import("./views/model_view.js");

const main = document.getElementById("main");
const notices = document.getElementById("notices");
const announcer = document.getElementById("announcer");

const live = new LiveState();
const session = new Session();
const stream = new EventStream({
  onEvent: (kind, data) => live.apply(kind, data),
  onMode: (mode) => live.setConnection(mode),
});
/** @type {Context} */
const context = { live, api, session, navigate, announce };

let dispose = () => {};
let shown = 0;
let isFirst = true;
let isViewMissing = false; // its module could not be fetched
let isLost = false; // the connection
let pageVersion = null; // of the server that this page came from
let bar;

begin();

function begin() {
  session.requestSignIn = makeSignInDialog(session);
  bar = fillTopBar(context);
  keepTimestamps();
  session.subscribe(followSession);
  live.subscribe(["start"], followVersion);
  live.subscribe(["connection"], followConnection);
  api.onUnauthorized(() => session.refresh().catch(() => {}));
  document.querySelector(".skip-link").addEventListener("click", (event) => {
    event.preventDefault();
    main.focus();
  });
  connect();
}

/** Asks who is there until the server answers; then shows the view of the address. */
async function connect() {
  try {
    await session.refresh();
  } catch (problem) {
    showFailure(problem, connect);
    return;
  }
  watchPlaces(showPlace);
}

function followConnection(_, mode) {
  if (mode === "reconnecting") {
    isLost = true;
    session.refresh().catch(() => {});
  } else if (mode === "stream" || mode === "polling") {
    if (isLost && isViewMissing) location.reload(); // browsers may remember that a module could not be fetched
    isLost = false;
  }
  showNotices();
}

function followVersion(_, { server_version: version }) {
  pageVersion ??= version;
  showFoot(version);
  showNotices();
}

function followSession() {
  if (session.has("read")) {
    if (stream.mode === "paused" || live.connection === "reconnecting") stream.start();
  } else {
    stream.stop();
    if (!session.hasEnded) live.clear();
  }
  showNotices();
  if (!session.has("read") && !session.hasEnded) showClosed();
  else if (main.dataset.closed) watchOnce();
}

function watchOnce() {
  dispatchEvent(new HashChangeEvent("hashchange"));
}

async function showPlace({ view, name, query }) {
  const turn = (shown += 1);
  if (!session.has("read") && !session.hasEnded) {
    showClosed();
    return;
  }
  const load = view === "models" && name !== null ? showModel : VIEWS.get(view);
  bar.markView(view === "models" ? "" : view);
  if (!load) {
    show(() => showUnknown(view));
    return;
  }
  try {
    const module = await load();
    if (turn === shown) show((container) => module.show(container, context, { name, query }));
  } catch (problem) {
    if (turn !== shown) return;
    showFailure(problem, () => location.reload());
    isViewMissing = true;
  }
}

function show(fill) {
  dispose();
  isViewMissing = false;
  delete main.dataset.closed;
  const container = h("div", { class: "view" });
  main.replaceChildren(container);
  dispose = fill(container) ?? (() => {});
  const heading = container.querySelector("h1");
  document.title = heading ? `${heading.dataset.title ?? heading.textContent} · serving` : "serving";
  if (heading && !isFirst) {
    heading.tabIndex = -1;
    heading.focus({ preventScroll: true });
    scrollTo(0, 0);
  }
  isFirst = false;
}

function showUnknown(view) {
  setChildren(
    main.firstChild,
    h("h1", null, "Nothing here"),
    h("p", null, `This page has no view called “${view}”. `, h("a", { href: hashOf("") }, "All models")),
  );
}

function showClosed() {
  shown += 1;
  show((container) => {
    const button = h("button", { type: "button", class: "button primary", onclick: () => session.requestSignIn() }, "Sign in");
    setChildren(
      container,
      h("h1", null, "Sign in to look"),
      h("p", null, session.whyNot("read") ?? "Reading needs a token on this server."),
      h("p", null, button),
    );
  });
  main.dataset.closed = "true";
}

function showFailure(problem, again) {
  show((container) => {
    const button = h("button", { type: "button", class: "button primary", onclick: again }, "Try again");
    setChildren(
      container,
      h("h1", null, problem.title ?? "The view could not be shown"),
      h("p", null, problem.detail ?? problem.message),
      h("p", null, button),
    );
  });
}

function showNotices() {
  const parts = [];
  if (session.hasEnded) {
    const action = h("button", { type: "button", class: "button primary", onclick: () => session.requestSignIn() }, "Sign in");
    const text = session.has("read")
      ? "You can go on looking. To change something, sign in again."
      : "What is shown stays as it was. Sign in again to see what happens now.";
    parts.push(banner({ tone: "warn", title: "Your session has ended", text, action }));
  }
  if (live.connection === "reconnecting" && live.heardAt) {
    const text = h("span", null, "The page tries again by itself. What is shown was true ", timestamp(live.heardAt.toISOString(), "ago"), ".");
    parts.push(banner({ tone: "bad", title: "Reconnecting to the server", text }));
  }
  if (pageVersion !== live.serverVersion) {
    const action = h("button", { type: "button", class: "button primary", onclick: () => location.reload() }, "Load again");
    const text = `This page is that of version ${pageVersion}. Load it again to see everything as it is now.`;
    parts.push(banner({ tone: "warn", title: `The server has version ${live.serverVersion} now`, text, action }));
  }
  setChildren(notices, ...parts);
}

/** Says which version of the server this is, and where its interface is documented. */
async function showFoot(version) {
  const foot = document.getElementById("foot");
  if (foot.dataset.version === version) return;
  foot.dataset.version = version;
  setChildren(foot, `serving ${version}`);
  const { docs } = await api.getJson("").catch(() => ({ docs: null }));
  if (docs) foot.append(" · ", h("a", { href: api.urlOf("docs") }, "HTTP interface"));
}

function announce(text) {
  setText(announcer, "");
  requestAnimationFrame(() => setText(announcer, text));
}
