// The processes that answer requests.

import { h, oncePerFrame, setAttributes, setChildren, setText } from "../dom.js";
import { formatCount, formatNumber, formatRate, NOTHING } from "../format.js";
import { SortedTable } from "../parts/sorted_table.js";
import { stateMark } from "../parts/state_mark.js";
import { timestamp } from "../parts/timestamp.js";
import { hashOf, replaceHash } from "../router.js";

const WINDOW_MS = 10_000;
const QUIET_MS = 2_000;

/** @type {import("../main.js").Show} */
export function show(container, { live }, { query }) {
  /** @type {Map<number, {at: number, requests: number}[]>} what each worker had counted, lately */
  const counted = new Map();
  const table = new SortedTable({
    caption: "Workers",
    columns: columnsOf((worker) => rateOf(counted.get(worker.index)), () => live.service?.generation ?? null),
    keyOf: ({ index }) => String(index),
    sort: query.get("sort") ?? "index",
    onSort: (sort) => replaceHash(hashOf("workers", null, { sort: sort === "index" ? "" : sort })),
    className: "workers",
  });
  const summary = h("p", { class: "muted" });
  const single = h("div", { class: "card" }, h("h2", null, "One process answers"), h("p", null, "This server runs with one worker: its own process answers all requests. To use more cores, start it with more of them, and they serve as one:"), h("p", null, h("code", null, "serving serve --workers auto")));
  const problem = h("p", { class: "tone-warn" });
  setChildren(container, h("h1", null, "Workers"), summary, problem, table.element, single);

  function note() {
    const at = performance.now();
    for (const { index, requests } of live.workers) {
      if (!counted.has(index)) counted.set(index, []);
      const samples = counted.get(index);
      if (samples.length && requests < samples.at(-1).requests) samples.length = 0;
      samples.push({ at, requests });
      while (samples.length > 2 && samples[1].at <= at - WINDOW_MS) samples.shift();
    }
  }

  function update() {
    const { workers, service, isKnown } = live;
    table.update(workers);
    table.element.hidden = !workers.length;
    single.hidden = !isKnown || workers.length > 0;
    const serving = workers.filter(({ state }) => state === "serving").length;
    const restarts = workers.reduce((sum, worker) => sum + worker.restarts, 0);
    setText(summary, !isKnown ? "Waiting for the server…" : workers.length ? `${serving} of ${workers.length} serve · generation ${formatNumber(service?.generation ?? 0)} · ${restarts ? formatCount(restarts, "restart") : "none was replaced"}` : "");
    setText(problem, service?.worker_problem ?? "");
  }
  const updateSoon = oncePerFrame(update);
  const quiet = setInterval(() => {
    note();
    updateSoon();
  }, QUIET_MS);
  const end = live.subscribe(["start", "workers", "service"], updateSoon);
  note();
  update();
  return () => {
    end();
    updateSoon.cancel();
    clearInterval(quiet);
  };
}

/** Columns, given a worker's rate and the newest generation. */
function columnsOf(rate, generation) {
  const describeRate = (worker) => formatRate(rate(worker));
  return [
    textColumn("index", "Worker", ({ index }) => index, { isHead: true, sortBy: ({ index }) => index }),
    {
      key: "state",
      title: "State",
      sortBy: ({ state }) => state,
      watch: ({ state, retry_at: retry }) => `${state} ${retry}`,
      update: updateState,
    },
    textColumn("pid", "Process", ({ pid }) => pid ?? NOTHING, { isNumber: true, sortBy: ({ pid }) => pid }),
    {
      key: "generation",
      title: "Generation",
      isNumber: true,
      hint: "The plan that it answers with: all that serve have the same",
      sortBy: (worker) => worker.generation,
      watch: (worker) => `${worker.generation} ${isBehind(worker, generation())}`,
      update(cell, worker) {
        const isLate = isBehind(worker, generation());
        setText(cell, formatNumber(worker.generation));
        cell.classList.toggle("is-bad", isLate);
        setAttributes(cell, { title: isLate ? `Behind: the newest is ${generation()}` : null });
      },
    },
    textColumn("rate", "Requests/s", describeRate, { isNumber: true, hint: "Over the last ten seconds", sortBy: rate }),
    textColumn("requests", "Requests", ({ requests }) => formatNumber(requests), {
      isNumber: true,
      hint: "Since the service started, of predecessors too",
      sortBy: ({ requests }) => requests,
    }),
    {
      key: "started",
      title: "Started",
      sortBy: ({ started_at: at }) => (at ? -new Date(at) : null),
      watch: ({ started_at: at }) => at,
      update: (cell, { started_at: at }) => setChildren(cell, timestamp(at, "ago")),
    },
    textColumn("restarts", "Restarts", ({ restarts }) => formatNumber(restarts), {
      isNumber: true,
      sortBy: ({ restarts }) => restarts,
    }),
    textColumn("reason", "Last reason", ({ reason }) => reason ?? NOTHING, { sortBy: ({ reason }) => reason }),
  ];
}

function textColumn(key, title, describe, more) {
  return { key, title, watch: describe, update: (cell, item) => setText(cell, describe(item)), ...more };
}

function isBehind(worker, newest) {
  return worker.state === "serving" && newest !== null && worker.generation < newest;
}

function updateState(cell, { state, retry_at: retry }) {
  setChildren(cell, stateMark(state), retry && h("span", { class: "muted" }, " again ", timestamp(retry, "ago")));
}

function rateOf(samples) {
  if (!samples || samples.length < 2) return null;
  const [first, last] = [samples[0], samples.at(-1)];
  return (last.requests - first.requests) / ((last.at - first.at) / 1000);
}
