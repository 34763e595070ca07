"use strict";
(() => {
  const root = document.documentElement;
  const tables = [...document.querySelectorAll("table.sortable")];
  const compare = new Intl.Collator("en", { numeric: true, sensitivity: "base" }).compare;

  // Sort a table by one column; rows without a value come last, and the sort is stable.
  function sort(table, index, direction) {
    const body = table.tBodies[0];
    table.original ??= [...body.rows];
    const headings = [...table.tHead.rows[0].cells];
    headings.forEach((heading, place) => {
      heading.setAttribute("aria-sort", place === index ? direction : "none");
    });
    if (direction === "none") {
      body.append(...table.original);
      return;
    }
    const sign = direction === "ascending" ? 1 : -1;
    const numeric = headings[index].dataset.sort === "number";
    const key = (row) => {
      const cell = row.cells[index];
      if (!numeric) return cell.textContent.trim();
      return cell.dataset.value === undefined ? null : Number(cell.dataset.value);
    };
    const keyed = table.original.map((row) => [key(row), row]);
    keyed.sort(([a], [b]) => {
      if (a === null || b === null) return (a === null) - (b === null);
      return sign * (numeric ? a - b : compare(a, b));
    });
    body.append(...keyed.map(([, row]) => row));
  }

  for (const table of tables) {
    [...table.tHead.rows[0].cells].forEach((heading, index) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = heading.textContent.trim();
      button.addEventListener("click", () => {
        const next = { ascending: "descending", descending: "none" };
        const direction = next[heading.getAttribute("aria-sort")] ?? "ascending";
        sort(table, index, direction);
        table.chosen = [index, direction];
      });
      heading.replaceChildren(button);
      heading.setAttribute("aria-sort", "none");
    });
  }

  // Print everything.
  let closed = [];
  const open = () => {
    closed = [...document.querySelectorAll("details:not([open])")];
    closed.forEach((part) => { part.open = true; });
  };
  const close = () => { closed.forEach((part) => { part.open = false; }); closed = []; };
  addEventListener("beforeprint", open);
  addEventListener("afterprint", close);

  // A page that is being rewritten reloads itself and keeps its state.
  const seconds = Number(root.dataset.refresh ?? 0);
  const name = "focal-lab:" + location.pathname + ":" + root.dataset.name;
  const parts = () => [...document.querySelectorAll("details")];
  let kept = null;
  try {
    kept = JSON.parse(sessionStorage.getItem(name));
    sessionStorage.removeItem(name);
  } catch { kept = null; }
  if (kept) {
    parts().forEach((part) => { part.open = kept.open.includes(part.id); });
    for (const table of tables) {
      const chosen = kept.sorts[table.id];
      if (chosen && chosen[0] < table.tHead.rows[0].cells.length) {
        sort(table, ...chosen);
        table.chosen = chosen;
      }
      table.closest(".scroll").scrollLeft = kept.sides[table.id] ?? 0;
    }
    scrollTo({ top: kept.scroll, behavior: "instant" });
  }
  if (seconds > 0) {
    const badge = document.getElementById("watching");
    const age = Date.now() / 1000 - Number(root.dataset.written);
    if (age > 10 * seconds + 60) {
      badge.textContent = "no longer watching";
      badge.classList.add("stale");
    } else {
      setTimeout(() => {
        const state = { scroll: scrollY, sorts: {}, sides: {}, open: [] };
        for (const table of tables) {
          if (table.chosen) state.sorts[table.id] = table.chosen;
          state.sides[table.id] = table.closest(".scroll").scrollLeft;
        }
        state.open = parts().filter((part) => part.open).map((part) => part.id);
        try { sessionStorage.setItem(name, JSON.stringify(state)); } catch { /* without storage, the state is lost */ }
        location.reload();
      }, 1000 * seconds);
    }
  }
})();
