// The dead letters: documents that were given up, the reason, and replaying them.

import { call, withQuery } from "/static/api.js";
import { byId, h, reconcile, setText } from "/static/dom.js";
import { ago, count, moment, plural } from "/static/format.js";
import { act, say } from "/static/notice.js";

const PAGE = 25;

export class DeadLetters {
  constructor() {
    this.limit = PAGE;
    this.all = byId("replay-all");
    this.all.addEventListener("click", () => act(this.all, () => this.replay({})));
    byId("dead-letters-more").addEventListener("click", () => {
      this.limit += PAGE;
      this.refresh();
    });
  }

  /** Read the list again. Throws ApiError. */
  async refresh() {
    const path = withQuery("/api/dead-letters", { limit: this.limit });
    const { dead_letters: deadLetters, next } = await call("GET", path);
    reconcile(byId("dead-letters-list"), deadLetters, (deadLetter) => deadLetter.id,
      (deadLetter) => this.row(deadLetter));
    byId("dead-letters-empty").hidden = deadLetters.length > 0;
    byId("dead-letters-more").hidden = next === null;
    this.all.hidden = deadLetters.length < 2;
  }

  row(deadLetter) {
    const age = h("span", { class: "age", title: moment(deadLetter.created_at) });
    const name = deadLetter.url ?? "an entry that could not be read";
    const button = h("button", { type: "button", "aria-label": `Replay ${name}`,
      onclick: () => act(button, () => this.replay({ ids: [deadLetter.id] })) }, "Replay");
    const row = h("li", { class: "row dead-letter" },
      h("div", { class: "subject" }, h("span", { class: "url" }, name),
        h("span", { class: "reason" }, deadLetter.error)),
      h("span", { class: "pill failed" }, deadLetter.code),
      h("span", { class: "where" }, deadLetter.stage),
      h("span", { class: "tries" }, `${plural(deadLetter.attempts, "try", "tries")}`), age,
      deadLetter.url === null ? h("span", { class: "hint" }, "nothing to replay") : button);
    row.update = () => setText(age, ago(deadLetter.created_at));
    return row;
  }

  async replay(filter) {
    const counts = await call("POST", "/api/dead-letters/replay", filter);
    const left = counts.superseded + counts.without_text + counts.without_item;
    const rest = left ? `, ${count(left)} left out` : "";
    say(`${plural(counts.replayed, "document")} queued again${rest}`);
    await this.refresh();
  }
}
