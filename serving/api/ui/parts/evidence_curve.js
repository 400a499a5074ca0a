// The evidence of a rollout over time: the e-value on a logarithmic axis, against the value at which the new version
// goes back, above the share of requests that it answers. The same points are in a table.

import { h, svg } from "../dom.js";
import { formatSeconds } from "../format.js";
import { timestamp } from "./timestamp.js";

const HEIGHT = 240;
const LEFT = 56;
const RIGHT = 12;
const TOP = 14;
const BOTTOM = 64; // the share, and the times below it
const SHARE_HEIGHT = 22;
const LOWEST = 1e-3; // smaller e-values say the same: nothing speaks against the new version
const TABLE_ROWS = 200;

/** Return the curve of `running`, a rollout under way, for a place that is `width` pixels wide. */
export function createCurve(running, width) {
  const points = running.curve.map((point) => ({
    at: Date.parse(point.at),
    value: point.e_value,
    share: point.share,
  }));
  if (points.length === 0) return h("p", { class: "muted" }, "No evidence yet: the curve begins with the first answers.");
  const scale = makeScale(points, running.threshold, width);
  const picture = svg(
    "svg",
    { viewBox: `0 0 ${width} ${HEIGHT}`, width, height: HEIGHT, class: "curve", role: "img", "aria-label": describe(running, points) },
    drawValueAxis(scale),
    drawTimeAxis(scale),
    drawThreshold(scale, running.threshold),
    drawShare(scale, points),
    svg("path", { class: "curve-line", d: traceValues(scale, points) }),
    svg("circle", { class: "curve-end", r: 4, cx: scale.x(points.at(-1).at), cy: scale.y(points.at(-1).value) }),
  );
  return h("figure", { class: "curve-figure" }, picture, createTable(points));
}

function makeScale(points, threshold, width) {
  const begin = points[0].at;
  const end = Math.max(points.at(-1).at, begin + 1000);
  const largest = Math.max(threshold * 3, ...points.map((point) => point.value));
  const least = Math.min(1, ...points.map((point) => point.value));
  const top = Math.log10(largest);
  const bottom = Math.log10(Math.max(least, LOWEST)) - 0.3;
  const low = HEIGHT - BOTTOM;
  return {
    right: width - RIGHT,
    begin,
    end,
    top,
    bottom,
    x: (at) => LEFT + ((at - begin) / (end - begin)) * (width - LEFT - RIGHT),
    y: (value) => {
      const level = Math.max(Math.log10(Math.max(value, Number.MIN_VALUE)), bottom);
      return low - ((level - bottom) / (top - bottom)) * (low - TOP);
    },
  };
}

function drawValueAxis(scale) {
  const first = Math.ceil(scale.bottom);
  const last = Math.floor(scale.top);
  const step = Math.max(1, Math.ceil((last - first) / 6));
  const ticks = [];
  for (let power = first; power <= last; power += step) {
    const y = scale.y(10 ** power);
    ticks.push(svg("line", { class: "curve-grid", x1: LEFT, x2: scale.right, y1: y, y2: y }));
    ticks.push(svg("text", { class: "curve-tick", x: LEFT - 8, y: y + 4, "text-anchor": "end" }, namePower(power)));
  }
  const middle = (TOP + HEIGHT - BOTTOM) / 2;
  const name = { class: "curve-name", "text-anchor": "middle", transform: `rotate(-90 12 ${middle})`, x: 12, y: middle };
  return [...ticks, svg("text", name, "e-value, log scale")];
}

function namePower(power) {
  return power >= -3 && power <= 4 ? String(Number((10 ** power).toPrecision(3))) : `1e${power}`;
}

function drawTimeAxis(scale) {
  const seconds = (scale.end - scale.begin) / 1000;
  const texts = [
    [LEFT, "start", "0"],
    [(LEFT + scale.right) / 2, "middle", scale.right > 420 ? "time since the rollout began" : "time"],
    [scale.right, "end", formatSeconds(seconds)],
  ];
  return texts.map(([x, anchor, text]) =>
    svg("text", { class: "curve-tick", x, y: HEIGHT - 6, "text-anchor": anchor }, text),
  );
}

function drawThreshold(scale, threshold) {
  const y = scale.y(threshold);
  return [
    svg("line", { class: "curve-threshold", x1: LEFT, x2: scale.right, y1: y, y2: y }),
    svg(
      "text",
      { class: "curve-threshold-name", x: scale.right, y: y - 6, "text-anchor": "end" },
      `goes back at ${formatValue(threshold)}`,
    ),
  ];
}

function drawShare(scale, points) {
  const low = HEIGHT - 22;
  const y = (share) => low - (share / 100) * SHARE_HEIGHT;
  let path = `M${scale.x(points[0].at)} ${low}`;
  for (const [place, point] of points.entries()) {
    path += `V${y(point.share)}`;
    path += `H${scale.x(points[place + 1]?.at ?? scale.end)}`;
  }
  return [
    svg("path", { class: "curve-share", d: `${path}V${low}Z` }),
    svg("text", { class: "curve-tick", x: LEFT - 8, y: low, "text-anchor": "end" }, "share"),
    svg("line", { class: "curve-axis", x1: LEFT, x2: scale.right, y1: low, y2: low }),
  ];
}

function traceValues(scale, points) {
  return points.map((point, place) => `${place ? "L" : "M"}${round(scale.x(point.at))} ${round(scale.y(point.value))}`).join("");
}

function round(number) {
  return Math.round(number * 10) / 10;
}

function describe(running, points) {
  const largest = Math.max(...points.map((point) => point.value));
  return (
    `Evidence against version ${running.version}: the e-value is ${formatValue(running.e_value)} now and was ` +
    `${formatValue(largest)} at most; from ${formatValue(running.threshold)} on the version goes back. ` +
    `It answers ${running.share}% of the requests.`
  );
}

function createTable(points) {
  const shown = points.slice(-TABLE_ROWS);
  const body = h("tbody", null);
  const details = h(
    "details",
    { class: "curve-table", "data-key": "curve-table" },
    h("summary", null, "Show as a table"),
    h(
      "div",
      { class: "table-scroll", tabindex: "0" },
      h(
        "table",
        { class: "table" },
        h("caption", { class: "visually-hidden" }, "Evidence over time, newest first"),
        h("thead", null, h("tr", null, ["Time", "e-value", "Share"].map((name) => h("th", { scope: "col" }, name)))),
        body,
      ),
    ),
  );
  const fill = () => {
    if (!details.open || body.childElementCount > 0) return;
    body.append(
      ...shown.toReversed().map((point) =>
        h(
          "tr",
          null,
          h("td", null, timestamp(new Date(point.at).toISOString(), "clock")),
          h("td", { class: "number" }, formatValue(point.value)),
          h("td", { class: "number" }, `${point.share}%`),
        ),
      ),
    );
  };
  details.addEventListener("toggle", fill);
  return details;
}

/** Return an e-value as text: the very large and the very small ones as powers of ten. */
export function formatValue(value) {
  if (value === 0) return "0";
  return value >= 1e5 || value < 0.01 ? value.toExponential(1) : String(Number(value.toPrecision(3)));
}
