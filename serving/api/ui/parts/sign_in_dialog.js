// Asks for a token and exchanges it for a session. The token leaves the field once and is kept nowhere.

import { h, setText, uniqueId } from "../dom.js";

/**
 * Makes the dialog and puts it into the page.
 * @param {import("../session.js").Session} session
 * @returns {(reason?: string) => Promise<boolean>} shows it; resolves with whether somebody has signed in
 */
export function makeSignInDialog(session) {
  const [titleId, reasonId, errorId] = [uniqueId("sign-in"), uniqueId("sign-in"), uniqueId("sign-in")];
  const reason = h("p", { id: reasonId, class: "dialog-text" });
  const error = h("p", { id: errorId, class: "field-error", role: "alert" });
  const field = h("input", {
    type: "password",
    name: "token",
    autocomplete: "off",
    autocapitalize: "off",
    spellcheck: "false",
    required: true,
    class: "input",
    "aria-describedby": `${reasonId} ${errorId}`,
  });
  const submit = h("button", { type: "submit", class: "button primary" }, "Sign in");
  const cancel = h("button", { type: "button", class: "button" }, "Cancel");
  const form = h(
    "form",
    { method: "dialog", class: "dialog-form" },
    h("h2", { id: titleId }, "Sign in"),
    reason,
    h("label", { class: "field" }, h("span", { class: "field-label" }, "Token"), field),
    error,
    h("div", { class: "dialog-buttons" }, cancel, submit),
  );
  const dialog = h("dialog", { class: "dialog", "aria-labelledby": titleId }, form);
  document.body.append(dialog);

  let answer = null;
  let settle = () => {};

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    submit.disabled = true;
    setText(error, "");
    try {
      await session.signIn(field.value);
      finish(true);
    } catch (problem) {
      setText(error, problem.status === 401 ? "The server does not know this token." : problem.message);
      field.setAttribute("aria-invalid", "true");
      field.select();
    } finally {
      submit.disabled = false;
    }
  });
  cancel.addEventListener("click", () => finish(false));
  dialog.addEventListener("close", () => finish(false));

  function finish(isSignedIn) {
    field.value = "";
    if (dialog.open) dialog.close();
    answer = null;
    settle(isSignedIn);
  }

  return (why = "A token opens what is closed now. It is exchanged for a session of limited life and kept nowhere.") => {
    if (answer) return answer;
    setText(reason, why);
    setText(error, "");
    field.removeAttribute("aria-invalid");
    answer = new Promise((resolve) => {
      settle = resolve;
    });
    const shown = answer;
    dialog.showModal();
    field.focus();
    return shown;
  };
}
