// The entries that workers hold, the longest idle first, and the actions on one.

import { call } from "/static/api.js";
import { byId, h, reconcile, setText } from "/static/dom.js";
import { count, duration, plural } from "/static/format.js";
import { act, say } from "/static/notice.js";
import { OPERATOR, STAGES } from "/static/tables.js";

const SHOWN = 50; // of each stage; the gates keep entries in flight far below a thousand

export class Pending {
  /** Read the lists again. Throws ApiError. */
  async refresh() {
    const pages = await Promise.all(STAGES.map(({ name }) =>
      call("GET", `/api/streams/${name}/pending?limit=${SHOWN}`)));
    const entries = pages.flatMap((page) =>
      page.entries.map((entry) => ({ ...entry, stage: page.stage })));
    entries.sort((one, other) => other.idle_ms - one.idle_ms);
    reconcile(byId("pending-list"), entries, (entry) => `${entry.stage} ${entry.lane} ${entry.id}`,
      (entry) => this.row(entry));
    byId("pending-empty").hidden = entries.length > 0;
  }

  row(entry) {
    const holder = h("code", { class: "hint" });
    const [tries, idle] = ["tries", "age"].map((name) => h("span", { class: name }));
    const first = entry.urls[0] ?? entry.id;
    const name = entry.urls.length > 1 ? `${first} and ${entry.urls.length - 1} more` : first;
    const row = h("li", { class: "row entry" },
      h("div", { class: "subject" },
        h("span", { class: "url", title: entry.urls.join("\n") }, name), holder),
      h("span", { class: "where" }, h("i", { class: `key ${entry.stage}` }), " ", entry.stage),
      h("span", { class: "lane-name" }, entry.lane), tries, idle,
      h("div", { class: "actions" },
        this.button(entry, name, "Release", "release", () => "Available to the next worker"),
        this.button(entry, name, "Give up", "dead-letter",
          (done) => `Given up: ${plural(done.dead_letters, "dead letter")}`)));
    row.update = (now) => {
      entry.consumer = now.consumer; // an action applies to the consumer that is shown, to no other
      setText(holder, now.consumer.startsWith(OPERATOR) ? "held by an operator" : now.consumer);
      setText(tries, `delivered ${count(now.deliveries)}×`);
      setText(idle, `idle ${duration(now.idle_ms)}`);
    };
    return row;
  }

  button(entry, name, title, action, outcome) {
    const send = async () => {
      const query = new URLSearchParams({ lane: entry.lane, consumer: entry.consumer });
      const path = `/api/streams/${entry.stage}/pending/${entry.id}/${action}?${query}`;
      say(outcome(await call("POST", path)));
      await this.refresh();
    };
    const button = h("button", { type: "button", "aria-label": `${title} ${name}`,
      onclick: () => act(button, send) }, title);
    return button;
  }
}
