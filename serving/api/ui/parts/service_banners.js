// What is wrong with the service as a whole, each with what to do about it.

import { h, setChildren } from "../dom.js";
import { formatCount } from "../format.js";
import { hashOf } from "../router.js";
import { banner } from "./banner.js";
import { servingCommand } from "./command_line.js";

/**
 * Keeps banners about the service in an element.
 * @param {HTMLElement} container
 * @param {import("../live_state.js").LiveState} live
 * @returns {() => void} ends that
 */
export function keepServiceBanners(container, live) {
  let shown = "";
  const show = () => {
    const wanted = live.isKnown && live.service ? describeService(live.service, [...live.models.values()]) : [];
    const text = JSON.stringify(wanted);
    if (text === shown) return; // what somebody reads or copies is left alone
    shown = text;
    setChildren(container, ...wanted.map(({ link, ...one }) => banner({ ...one, action: link && h("a", { class: "button small", href: link[0] }, link[1]) })));
  };
  show();
  return live.subscribe(["start", "service", "model", "removed"], show);
}

/**
 * Says what is wrong with the service: values of `banner`, with `link` as address and text instead of an action.
 * @param {NonNullable<import("../live_state.js").LiveState["service"]>} service
 * @param {import("../live_state.js").ModelEntry[]} models
 * @returns {object[]}
 */
export function describeService(service, models) {
  const { store, state } = service;
  const found = [];
  if (state.is_held) {
    found.push({
      tone: "held",
      title: "Held: operators’ decisions have been lost",
      text: `${state.problem ? `${sentence(state.problem)} ` : ""}Only what was active before answers, and what is pinned from now on. When you have checked that this is right, accept the loss:`,
      command: servingCommand("accept-state-loss"),
    });
  } else if (state.problem) {
    found.push({ tone: "warn", title: "The state database has a problem", text: sentence(state.problem), link: [hashOf("store"), "Store"] });
  }
  if (!store.is_available && (store.reason || store.listed_at)) {
    found.push({
      tone: "bad",
      title: "The store cannot be listed",
      text: `${sentence(store.reason ?? "The reason is not known")} What is active goes on answering; the server looks again by itself.`,
      link: [hashOf("store"), "Store"],
    });
  }
  if (!service.ready && (models.length > 0 || !store.is_available)) {
    const isComing = models.some((model) => model.target);
    const [tone, title] = isComing ? ["busy", "Not ready yet"] : ["bad", "Not ready"];
    found.push({ tone, title, text: sentence(service.reason ?? "No model is active") });
  }
  if (service.worker_problem) {
    found.push({ tone: "warn", title: "Not all workers serve", text: sentence(service.worker_problem), link: [hashOf("workers"), "Workers"] });
  }
  if (store.problems.length) {
    found.push({
      tone: "warn",
      title: `${formatCount(store.problems.length, "problem")} in the store`,
      items: store.problems.slice(0, 3),
      link: [hashOf("store"), store.problems.length > 3 ? "All problems" : "Store"],
    });
  }
  return found;
}

function sentence(text) {
  const trimmed = text.trim();
  const begun = trimmed.charAt(0).toUpperCase() + trimmed.slice(1);
  return /[.!?]$/.test(begun) ? begun : `${begun}.`;
}
