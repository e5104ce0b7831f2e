"use strict";
(() => {
  const all = (query, root = document) => [...root.querySelectorAll(query)];
  const search = document.getElementById("search");
  const found = document.getElementById("found");
  const rows = all("[data-name]");

  const filter = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const names = new Set();
    for (const row of rows) {
      const fits = words.every((word) => row.dataset.name.includes(word));
      row.classList.toggle("none", !fits);
      if (fits && row.dataset.layer) names.add(row.dataset.layer);
    }
    for (const branch of all(".tree details")) {
      const any = branch.querySelector(".leaf:not(.none)");
      branch.classList.toggle("none", !any);
      if (words.length && any) branch.open = true;
    }
    found.textContent = words.length ? `${names.size} of ${search.dataset.total} layers` : "";
  };
  search.dataset.total = new Set(rows.map((row) => row.dataset.layer).filter(Boolean)).size;
  search.addEventListener("input", filter);

  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && !/^(INPUT|TEXTAREA)$/.test(document.activeElement.tagName)) {
      event.preventDefault();
      search.focus();
    } else if (event.key === "Escape" && search.value) {
      search.value = "";
      filter();
    }
  });

  const key = (cell) => {
    const value = cell.dataset.sort ?? cell.textContent;
    const number = Number(value);
    return value !== "" && !Number.isNaN(number) ? number : value;
  };
  const order = (a, b) => {
    if (typeof a === "number" && typeof b === "number") return a - b;
    if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
    return a.localeCompare(b, undefined, { numeric: true });
  };
  for (const button of all("th button")) {
    button.addEventListener("click", () => {
      const head = button.closest("th");
      const body = head.closest("table").tBodies[0];
      const down = head.getAttribute("aria-sort") === "ascending";
      for (const other of all("th", head.parentElement)) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const sorted = [...body.rows].map((row) => [key(row.cells[head.cellIndex]), row]);
      sorted.sort(([a], [b]) => (down ? order(b, a) : order(a, b)));
      for (const [, row] of sorted) body.append(row);
    });
  }

  for (const button of all("button[data-fold]")) {
    button.addEventListener("click", () => {
      const open = button.dataset.fold === "open";
      for (const card of all("details.card:not(.none)")) card.open = open;
    });
  }
  const reveal = () => {
    const card = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (card && card.matches("details")) card.open = true;
  };
  window.addEventListener("hashchange", reveal);
  reveal();
})();
