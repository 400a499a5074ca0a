// Sends a file as a version, and says how far it is: `fetch` cannot say that of what it sends.

const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,254}$/;

/**
 * PUT a file as a version: `upload` is `{model, version, file, isBreaking}`; `onProgress(sent, all)` is called in bytes.
 * Resolves, also when the server refuses, to `{status, reason, said}`: how the upload stands (null where the server has
 * not begun one), why it was refused, and one sentence.
 */
export function sendFile(api, upload, onProgress) {
  const { model, version, file, isBreaking } = upload;
  const call = new XMLHttpRequest();
  const query = new URLSearchParams({ file: nameArtefact(file.name), breaking: String(isBreaking) });
  call.open("PUT", api.urlOf(`${api.pathOf("models", model, "versions", version)}?${query}`));
  call.setRequestHeader("Content-Type", "application/octet-stream");
  call.setRequestHeader("Accept", "application/json");
  call.upload.addEventListener("progress", (event) => onProgress(event.loaded, event.total));
  return new Promise((resolve) => {
    const fail = (reason) => resolve({ status: null, reason, said: `not published: ${reason}` });
    call.addEventListener("load", () => {
      const body = parse(call.responseText);
      if (call.status === 201) resolve({ status: body, reason: null, said: `published as ${body.model} ${body.version}` });
      else if (body?.upload) resolve({ status: body.upload, reason: body.detail, said: `not published: ${body.detail}` });
      else fail(body?.detail ?? body?.title ?? `HTTP ${call.status}`);
    });
    call.addEventListener("error", () => fail("the connection was lost while it was sent"));
    call.send(file);
  });
}

/** Return the name of a file in the store: its own, or where that cannot be one, `model` with its suffix. */
export function nameArtefact(name) {
  return NAME.test(name) ? name : `model${/\.[A-Za-z0-9]+$/.exec(name)?.[0] ?? ""}`;
}

function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
