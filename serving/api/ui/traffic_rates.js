// From counts that only grow to rates and percentiles: the server counts, the page subtracts.

const WINDOW_S = 10;
const SHORTEST_S = 1.5;

/**
 * @typedef {object} Counts one version's line of a `traffic` event
 * @property {number} requests
 * @property {number} refused 4xx
 * @property {number} failed 5xx
 * @property {number} rows
 * @property {number} seconds
 * @property {number[]} buckets requests by latency: one number for each bound, and one for longer ones
 */

/**
 * @typedef {object} Rates null where not enough is known
 * @property {number | null} requestsPerSecond
 * @property {number | null} p99Seconds null while nothing was asked
 * @property {boolean} isP99Beyond whether it is longer than that, which is the longest that the server tells apart
 * @property {number | null} failedPerSecond
 * @property {number | null} refusedPerSecond
 */

const UNKNOWN = Object.freeze({ requestsPerSecond: null, p99Seconds: null, isP99Beyond: false, failedPerSecond: null, refusedPerSecond: null });

/** The counts of one version over the last seconds. Times are in seconds of any one clock. */
export class CountWindow {
  constructor() {
    /** @private @type {{at: number, counts: Counts}[]} */
    this.samples = [];
  }

  /**
   * Takes counts as they were at a time. Counts that have shrunk are those of a server that began anew.
   * @param {number} at
   * @param {Counts} counts
   */
  add(at, counts) {
    const last = this.samples.at(-1);
    if (last && (counts.requests < last.counts.requests || at < last.at)) this.samples = [];
    this.samples.push({ at, counts });
    const keep = this.samples.findLastIndex((sample) => sample.at <= at - WINDOW_S);
    if (keep > 0) this.samples.splice(0, keep);
  }

  /** The newest counts, null before the first. @returns {Counts | null} */
  get counts() {
    return this.samples.at(-1)?.counts ?? null;
  }

  /**
   * What was counted in the window that ends now, and its length in seconds; null while less than two seconds are known.
   * Counts stay the same between samples, because the server sends those that change.
   * @param {number} now
   * @returns {{seconds: number, counts: Counts} | null}
   */
  difference(now) {
    const last = this.samples.at(-1);
    if (!last) return null;
    const isFresh = now - last.at < 3;
    const end = isFresh ? last.at : now;
    const first = this.samples.findLast((sample) => sample.at <= end - WINDOW_S) ?? this.samples[0];
    const seconds = Math.min(end - first.at, WINDOW_S);
    return seconds < SHORTEST_S ? null : { seconds, counts: subtract(last.counts, first.counts) };
  }
}

/**
 * Makes rates of the windows of one or more versions.
 * @param {CountWindow[]} windows
 * @param {number} now
 * @param {number[]} bounds latency bounds in seconds
 * @returns {Rates}
 */
export function ratesOf(windows, now, bounds) {
  const differences = windows.map((window) => window.difference(now)).filter(Boolean);
  if (!differences.length) return UNKNOWN;
  const perSecond = (field) => differences.reduce((sum, { seconds, counts }) => sum + counts[field] / seconds, 0);
  const buckets = differences.map(({ counts }) => counts.buckets).reduce((sum, one) => sum.map((value, i) => value + one[i]));
  const p99 = percentile(buckets, bounds, 0.99);
  return {
    requestsPerSecond: perSecond("requests"),
    p99Seconds: p99 === Infinity ? bounds.at(-1) : p99,
    isP99Beyond: p99 === Infinity,
    failedPerSecond: perSecond("failed"),
    refusedPerSecond: perSecond("refused"),
  };
}

/**
 * The value below which a share of all lies, from a histogram; linear within a bucket. Infinity beyond the last bound,
 * null when the histogram is empty.
 * @param {number[]} buckets not cumulative, one more than bounds
 * @param {number[]} bounds
 * @param {number} share 0 to 1
 * @returns {number | null}
 */
export function percentile(buckets, bounds, share) {
  const total = buckets.reduce((sum, count) => sum + count, 0);
  if (total <= 0) return null;
  let left = total * share;
  for (const [i, count] of buckets.entries()) {
    if (count > 0 && left <= count) {
      if (i >= bounds.length) return Infinity;
      const low = i === 0 ? 0 : bounds[i - 1];
      return low + (bounds[i] - low) * (left / count);
    }
    left -= count;
  }
  return Infinity;
}

function subtract(last, first) {
  return {
    requests: last.requests - first.requests,
    refused: last.refused - first.refused,
    failed: last.failed - first.failed,
    rows: last.rows - first.rows,
    seconds: last.seconds - first.seconds,
    buckets: last.buckets.map((count, i) => count - (first.buckets[i] ?? 0)),
  };
}
