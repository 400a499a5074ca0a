// A <time> element that follows the zone of the page, and the passing of time where it says how long ago something was.

import { h, setText } from "../dom.js";
import { formatAgo, formatClock, formatTime, NOTHING, zoneName } from "../format.js";
import { currentZone, onZoneChange } from "../time_zone.js";

const REFRESH_MS = 5_000;

/**
 * Returns an element that shows a time: "full" is date and time, "clock" the time of day, "ago" how long ago; the whole
 * time with its zone is its title.
 * @param {string | null} iso
 * @param {"full" | "clock" | "ago"} [style]
 * @returns {HTMLElement}
 */
export function timestamp(iso, style = "full") {
  const element = h("time", { class: "time", "data-time": style });
  setTimestamp(element, iso);
  return element;
}

/**
 * Changes the time that an element of `timestamp` shows.
 * @param {HTMLElement} element
 * @param {string | null} iso
 */
export function setTimestamp(element, iso) {
  if (iso) element.setAttribute("datetime", iso);
  else element.removeAttribute("datetime");
  show(element);
}

/** Keeps all such elements of the page right. Called once. */
export function keepTimestamps() {
  const refresh = (selector) => {
    for (const element of document.querySelectorAll(selector)) show(element);
  };
  onZoneChange(() => refresh("time[data-time]"));
  setInterval(() => document.hidden || refresh('time[data-time="ago"]'), REFRESH_MS);
}

function show(element) {
  const iso = element.getAttribute("datetime");
  if (!iso) {
    setText(element, NOTHING);
    element.removeAttribute("title");
    return;
  }
  const zone = currentZone();
  const { time: style } = element.dataset;
  setText(element, style === "ago" ? formatAgo(iso) : style === "clock" ? formatClock(iso, zone) : formatTime(iso, zone));
  const title = `${formatTime(iso, zone)} ${zoneName(zone, new Date(iso))}`;
  if (element.title !== title) element.title = title;
}
