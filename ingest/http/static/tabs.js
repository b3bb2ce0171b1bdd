// Tabs after the ARIA Authoring Practices: one tab stop, arrow keys. The address has the open tab.

import { byId } from "/static/dom.js";

const KEYS = { ArrowRight: 1, ArrowLeft: -1 };

export class Tabs {
  constructor(list, onSelect) {
    this.tabs = [...list.querySelectorAll("[role=tab]")];
    this.onSelect = onSelect;
    for (const tab of this.tabs) tab.addEventListener("click", () => this.select(panelOf(tab)));
    list.addEventListener("keydown", (event) => this.onKey(event));
    window.addEventListener("hashchange", () => this.show(location.hash.slice(1)));
    this.show(location.hash.slice(1));
  }

  select(name) {
    history.replaceState(null, "", `#${name}`);
    this.show(name);
    this.onSelect();
  }

  show(name) {
    this.selected = this.tabs.some((tab) => panelOf(tab) === name) ? name : panelOf(this.tabs[0]);
    for (const tab of this.tabs) {
      const isSelected = panelOf(tab) === this.selected;
      tab.setAttribute("aria-selected", isSelected);
      tab.tabIndex = isSelected ? 0 : -1;
      byId(panelOf(tab)).hidden = !isSelected;
    }
  }

  onKey(event) {
    const last = this.tabs.length - 1;
    const now = this.tabs.findIndex((tab) => panelOf(tab) === this.selected);
    let next;
    if (event.key in KEYS) next = (now + KEYS[event.key] + this.tabs.length) % this.tabs.length;
    else if (event.key === "Home") next = 0;
    else if (event.key === "End") next = last;
    else return;
    event.preventDefault();
    this.select(panelOf(this.tabs[next]));
    this.tabs[next].focus();
  }
}

const panelOf = (tab) => tab.getAttribute("aria-controls");
