// Numbers, sizes and times as text. Pure functions; where nothing is known they return an en dash.

export const NOTHING = "–";

const formatters = [0, 1, 2, 3, 4, 5, 6].map((digits) => new Intl.NumberFormat("en-US", { maximumFractionDigits: digits }));

/** @param {number} number @param {number} [digits] fraction digits at most, 0 to 6 @returns {string} */
export function formatNumber(number, digits = 0) {
  return isKnown(number) ? formatters[digits].format(number) : NOTHING;
}

/** Something a second: fewer digits for more. @param {number | null} rate @returns {string} */
export function formatRate(rate) {
  if (!isKnown(rate)) return NOTHING;
  if (rate === 0) return "0";
  if (rate < 0.1) return "< 0.1";
  return rate < 10 ? rate.toFixed(1) : formatNumber(Math.round(rate));
}

/** A duration or latency in seconds, with a unit that fits. @param {number | null} seconds @returns {string} */
export function formatSeconds(seconds) {
  if (!isKnown(seconds)) return NOTHING;
  if (seconds === 0) return "0 ms";
  if (seconds < 0.0009995) return `${trim(seconds * 1e6)} µs`;
  if (seconds < 0.9995) return `${trim(seconds * 1e3)} ms`;
  if (seconds < 120) return `${trim(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172_800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86_400)} days`;
}

/**
 * The 99th percentile of latencies.
 * @param {import("./traffic_rates.js").Rates} rates
 * @returns {string}
 */
export function formatP99({ p99Seconds, isP99Beyond }) {
  return `${isP99Beyond ? "> " : ""}${formatSeconds(p99Seconds)}`;
}

/** @param {number | null} bytes @returns {string} */
export function formatBytes(bytes) {
  if (!isKnown(bytes)) return NOTHING;
  if (bytes < 1000) return `${bytes} B`;
  const units = ["kB", "MB", "GB", "TB"];
  let value = bytes / 1000;
  let unit = 0;
  while (value >= 999.5 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${trim(value)} ${units[unit]}`;
}

/** @param {number | null} percent 0 to 100 @returns {string} */
export function formatPercent(percent) {
  return isKnown(percent) ? `${trim(percent)} %` : NOTHING;
}

/** `1 model`, `2 models`. @param {number} count @param {string} word @param {string} [plural] @returns {string} */
export function formatCount(count, word, plural = `${word}s`) {
  return `${formatNumber(count)} ${count === 1 ? word : plural}`;
}

/** The first digits of a digest, without its algorithm. @param {string | null} digest @returns {string} */
export function formatDigest(digest) {
  return digest ? digest.replace(/^sha256:/, "").slice(0, 12) : NOTHING;
}

/**
 * Date and time to the second. The zone is not in the text: `zoneName` says it once for all.
 * @param {string | Date | null} time
 * @param {"local" | "utc"} zone
 * @returns {string}
 */
export function formatTime(time, zone) {
  const parts = partsOf(time, zone);
  return parts ? `${parts.day} ${parts.clock}` : NOTHING;
}

/** Only the time of day. @param {string | Date | null} time @param {"local" | "utc"} zone @returns {string} */
export function formatClock(time, zone) {
  return partsOf(time, zone)?.clock ?? NOTHING;
}

/** Only the day. @param {string | Date | null} time @param {"local" | "utc"} zone @returns {string} */
export function formatDay(time, zone) {
  return partsOf(time, zone)?.day ?? NOTHING;
}

/**
 * How long ago something was, for people.
 * @param {string | Date | null} time
 * @param {number} [now] in ms
 * @returns {string}
 */
export function formatAgo(time, now = Date.now()) {
  if (!time || Number.isNaN(+new Date(time))) return NOTHING;
  const seconds = (now - new Date(time)) / 1000;
  if (seconds < 5) return seconds < -5 ? `in ${formatSeconds(Math.round(-seconds))}` : "just now";
  if (seconds < 60) return `${Math.round(seconds)} s ago`;
  return `${formatSeconds(Math.max(seconds, 120))} ago`.replace(/^2 min/, `${Math.round(seconds / 60)} min`);
}

/**
 * The name of a time zone, with its distance from UTC.
 * @param {"local" | "utc"} zone
 * @param {Date} [at]
 * @returns {string}
 */
export function zoneName(zone, at = new Date()) {
  const minutes = -at.getTimezoneOffset();
  if (zone === "utc" || minutes === 0) return zone === "utc" ? "UTC" : "local time, which is UTC here";
  const sign = minutes < 0 ? "−" : "+";
  const [hours, rest] = [Math.floor(Math.abs(minutes) / 60), Math.abs(minutes) % 60];
  const name = Intl.DateTimeFormat().resolvedOptions().timeZone || "local time";
  return `${name} (UTC${sign}${hours}${rest ? `:${pad(rest)}` : ""})`;
}

function partsOf(time, zone) {
  const date = time ? new Date(time) : null;
  if (!date || Number.isNaN(+date)) return null;
  const shown = zone === "utc" ? date : new Date(+date - date.getTimezoneOffset() * 60_000);
  const text = shown.toISOString();
  return { day: text.slice(0, 10), clock: text.slice(11, 19) };
}

function trim(value) {
  if (value >= 99.5) return formatNumber(Math.round(value));
  return value >= 9.95 ? String(Number(value.toFixed(1))) : String(Number(value.toFixed(2)));
}

function pad(number) {
  return String(number).padStart(2, "0");
}

function isKnown(number) {
  return typeof number === "number" && Number.isFinite(number);
}
