// Sends a file as a version, and says how far it is: `fetch` cannot say that of what it sends.

/**
 * PUT a file as `model`/`version`; `onProgress(sent, all)` is called in bytes. Resolves, also when the server refuses, to
 * `{status, reason, said}`: the server's document of the upload (null without one), why it was refused, and one sentence.
 */
export function sendFile(api, model, version, file, onProgress) {
  const call = new XMLHttpRequest();
  const path = `${api.pathOf("models", model, "versions", version)}?file=${encodeURIComponent(file.name)}`;
  call.open("PUT", api.urlOf(path));
  call.setRequestHeader("Content-Type", "application/octet-stream");
  call.setRequestHeader("Accept", "application/json");
  call.upload.addEventListener("progress", (event) => onProgress(event.loaded, event.total));
  return new Promise((resolve) => {
    call.addEventListener("load", () => resolve(readOutcome(call, model)));
    const fail = (reason) => () => resolve({ status: null, reason, said: `not published: ${reason}` });
    call.addEventListener("error", fail("the connection was lost while it was sent"));
    call.addEventListener("abort", fail("sending was stopped"));
    call.send(file);
  });
}

function readOutcome(call, model) {
  const body = parse(call.responseText);
  const status = body?.upload ?? (body?.gates ? body : null);
  if (call.status >= 200 && call.status < 300) {
    return { status, reason: null, said: `published as ${model} ${status?.version ?? body?.version ?? ""}` };
  }
  const reason = body?.detail ?? body?.title ?? `HTTP ${call.status}`;
  return { status, reason, said: `not published: ${reason}` };
}

function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
