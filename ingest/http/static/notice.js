// One line at the foot of the page shows the outcome of an action.

import { byId } from "/static/dom.js";

const SECONDS = 6;
let timer;

export function say(text) {
  const notice = byId("notice");
  notice.textContent = text;
  notice.classList.add("shown");
  clearTimeout(timer);
  timer = setTimeout(() => notice.classList.remove("shown"), SECONDS * 1000);
}

/** Run the action of a button. The button is disabled meanwhile; an error is shown. */
export async function act(button, action) {
  button.disabled = true;
  try {
    await action();
  } catch (error) {
    say(error.message);
  } finally {
    button.disabled = false;
  }
}
