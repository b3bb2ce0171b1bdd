// The dead letters: documents that were given up, the reason, and replaying them.

import { call, withQuery } from "/static/api.js";
import { byId, h, reconcile, setText } from "/static/dom.js";
import { ago, count, moment, plural } from "/static/format.js";
import { act, say } from "/static/notice.js";

const PAGE = 25;

export class Letters {
  constructor() {
    this.limit = PAGE;
    this.all = byId("replay-all");
    this.all.addEventListener("click", () => act(this.all, () => this.replay({})));
    byId("letters-more").addEventListener("click", () => {
      this.limit += PAGE;
      this.refresh();
    });
  }

  /** Read the list again. Throws ApiError. */
  async refresh() {
    const { dead_letters: letters, next } = await call("GET", withQuery("/api/dead-letters", { limit: this.limit }));
    reconcile(byId("letters-list"), letters, (letter) => letter.id, (letter) => this.row(letter));
    byId("letters-empty").hidden = letters.length > 0;
    byId("letters-more").hidden = next === null;
    this.all.hidden = letters.length < 2;
  }

  row(letter) {
    const age = h("span", { class: "age", title: moment(letter.created_at) });
    const name = letter.url ?? "an entry that could not be read";
    const button = h("button", { type: "button", "aria-label": `Replay ${name}`,
      onclick: () => act(button, () => this.replay({ ids: [letter.id] })) }, "Replay");
    const row = h("li", { class: "row letter" },
      h("div", { class: "subject" }, h("span", { class: "url" }, name),
        h("span", { class: "reason" }, letter.error)),
      h("span", { class: "pill failed" }, letter.code), h("span", { class: "where" }, letter.stage),
      h("span", { class: "tries" }, `${plural(letter.attempts, "try", "tries")}`), age,
      letter.url === null ? h("span", { class: "hint" }, "nothing to replay") : button);
    row.update = () => setText(age, ago(letter.created_at));
    return row;
  }

  async replay(filter) {
    const counts = await call("POST", "/api/dead-letters/replay", filter);
    const left = counts.superseded + counts.without_text + counts.without_item;
    say(`${plural(counts.replayed, "document")} queued again${left ? `, ${count(left)} left out` : ""}`);
    await this.refresh();
  }
}
