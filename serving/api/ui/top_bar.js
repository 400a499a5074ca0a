// The bar above every view: where you are, whether the page is up to date, in which zone times are, who is signed in.

import { h, oncePerFrame, setAttributes, setChildren, setText } from "./dom.js";
import { formatCount, zoneName } from "./format.js";
import { hashOf } from "./router.js";
import { toneMark, setToneMark } from "./parts/state_mark.js";
import { currentZone, onZoneChange, toggleZone } from "./time_zone.js";

const LINKS = [
  ["", "Models"],
  ["history", "History"],
  ["store", "Store"],
  ["workers", "Workers"],
];

const CONNECTIONS = {
  connecting: ["busy", "Connecting", "The stream of events is being opened."],
  stream: ["good", "Live", "Changes arrive by the stream of events."],
  polling: ["warn", "Polling", "The stream brings nothing here, so the page asks every two seconds. A proxy may hold streams back."],
  reconnecting: ["bad", "Reconnecting", "The server cannot be reached. What is shown may be old; nothing is missed once it is back."],
  paused: ["idle", "Paused", "The page is not kept up to date."],
};

/**
 * Fills the bar.
 * @param {import("./main.js").Context} context
 * @returns {{markView: (view: string) => void}} says which link is the current one
 */
export function fillTopBar({ live, session, announce }) {
  const links = LINKS.map(([view, text]) => {
    const count = h("span", { class: "nav-count" });
    return { view, count, link: h("a", { href: hashOf(view), class: "nav-link" }, text, count) };
  });
  setChildren(document.getElementById("top-nav"), ...links.map(({ link }) => link));

  const connection = toneMark("busy", "Connecting");
  connection.id = "connection";
  const zone = h("button", { type: "button", class: "button quiet small", id: "zone", onclick: toggleZone });
  const account = h("span", { class: "account" });
  setChildren(document.getElementById("top-tools"), connection, zone, account);

  let last = "";
  const showConnection = () => {
    const [tone, word, text] = CONNECTIONS[live.connection];
    setToneMark(connection, tone, word);
    connection.title = text;
    const isBroken = live.connection === "reconnecting";
    if (isBroken && last !== "reconnecting") announce("The connection is lost. Reconnecting.");
    if (last === "reconnecting" && live.connection === "stream") announce("Connected again.");
    if (isBroken || live.connection === "stream") last = live.connection;
  };
  live.subscribe(["connection"], showConnection);
  showConnection();

  const showZone = () => {
    const isUtc = currentZone() === "utc";
    setText(zone, isUtc ? "UTC" : "Local time");
    const name = zoneName(currentZone());
    setAttributes(zone, { title: `Times are in ${name}`, "aria-label": `Times are in ${name}. Show ${isUtc ? "local time" : "UTC"}` });
  };
  onZoneChange(showZone);
  showZone();

  const showAccount = () => setChildren(account, ...describeAccount(session));
  session.subscribe(showAccount);
  showAccount();

  const showCounts = oncePerFrame(() => {
    const problems = countProblems(live);
    const [models, , store, workers] = links;
    setText(models.count, live.models.size || "");
    setText(store.count, problems ? "!" : "");
    setAttributes(store.count, { title: problems ? formatCount(problems, "problem") : null, "aria-label": problems ? formatCount(problems, "problem") : null, role: problems ? "img" : null });
    setText(workers.count, live.workers.length || "");
  });
  live.subscribe(["start", "model", "removed", "service", "workers"], showCounts);

  return {
    markView(view) {
      for (const one of links) setAttributes(one.link, { "aria-current": one.view === view ? "page" : null });
    },
  };
}

function countProblems({ service }) {
  if (!service) return 0;
  const { store, state } = service;
  return store.problems.length + (store.is_available ? 0 : 1) + (state.problem || state.is_held ? 1 : 0);
}

function describeAccount(session) {
  const { state } = session;
  if (!state) return [];
  const parts = [];
  if (state.ui === "read") parts.push(h("span", { class: "chip", title: session.whyNot("admin") }, "Read only"));
  if (session.isSignedIn) {
    const may = state.scopes.includes("admin") ? "Admin" : state.scopes.join(", ");
    const out = h("button", { type: "button", class: "button small", onclick: () => session.signOut().catch(() => {}) }, "Sign out");
    parts.push(h("span", { class: "chip", title: `This session may: ${state.scopes.join(", ")}` }, may), out);
  } else if (session.canSignIn) {
    parts.push(h("button", { type: "button", class: "button small primary", onclick: () => session.requestSignIn() }, "Sign in"));
  }
  return parts;
}
