// Reads something when asked to, at most once a second, and never twice at a time; the last asking is always followed.

const LEAST_MS = 1000;

/** Return `{ask, stop}`: `ask()` has `read` done now or soon; `read` never rejects. */
export function createPoll(read) {
  let isBusy = false;
  let isWanted = false;
  let isStopped = false;
  let timer = 0;
  let readAt = -Infinity;

  async function run() {
    timer = 0;
    isBusy = true;
    isWanted = false;
    readAt = performance.now();
    await read();
    isBusy = false;
    if (isWanted) schedule();
  }

  function schedule() {
    if (isStopped || timer !== 0) return;
    timer = setTimeout(run, Math.max(0, readAt + LEAST_MS - performance.now()));
  }

  return {
    ask: () => {
      isWanted = true;
      if (!isBusy) schedule();
    },
    stop: () => {
      isStopped = true;
      clearTimeout(timer);
    },
  };
}
