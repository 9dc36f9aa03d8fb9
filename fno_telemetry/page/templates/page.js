"use strict";
(() => {
  const number = (text) => (/^[-−+]?[\d.]/.test(text) ? parseFloat(text.replace("−", "-")) : NaN);
  const compare = (a, b) => {
    const [x, y] = [number(a), number(b)];
    if (isNaN(x) || isNaN(y)) return isNaN(x) - isNaN(y) || (isNaN(x) ? a.localeCompare(b) : 0);
    return x - y;
  };

  // Sort a table by a column: up, down, then as it was.
  for (const table of document.querySelectorAll("table.sortable")) {
    const body = table.tBodies[0];
    const original = [...body.rows];
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const state = head.getAttribute("aria-sort");
        const next = state === null ? "ascending" : state === "ascending" ? "descending" : null;
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        if (next === null) return body.append(...original);
        head.setAttribute("aria-sort", next);
        const text = (row) => row.cells[column].textContent;
        const defined = (row) => !text(row).startsWith("–");
        const known = original.filter(defined).sort((a, b) => compare(text(a), text(b)));
        if (next === "descending") known.reverse();
        body.append(...known, ...original.filter((row) => !defined(row)));
      });
    });
  }

  // Show the layers whose name or role holds a text.
  const layers = document.querySelector("#layers table.sortable");
  if (layers && layers.tBodies[0].rows.length > 8) {
    const field = document.createElement("input");
    field.type = "search";
    field.placeholder = "name or role";
    field.setAttribute("aria-label", "Show layers whose name or role holds this text");
    layers.parentNode.before(field);
    field.addEventListener("input", () => {
      const wanted = field.value.toLowerCase();
      for (const row of layers.tBodies[0].rows) {
        const text = `${row.cells[0].textContent} ${row.cells[1].textContent}`.toLowerCase();
        row.hidden = !text.includes(wanted);
      }
    });
  }

  // Name the layer under the pointer, with its numbers in the table of layers.
  const rowOf = new Map();
  if (layers) for (const row of layers.tBodies[0].rows) rowOf.set(row.cells[0].textContent, row);
  const names = layers ? [...layers.tHead.rows[0].cells].map((cell) => cell.textContent) : [];
  const describe = (name) => {
    const row = rowOf.get(name);
    if (!row) return name;
    const numbers = [...row.cells].slice(3, 8).map((cell, index) => `${names[index + 3]} ${cell.textContent}`);
    return `${name}: ${numbers.join(", ")}`;
  };
  const box = document.createElement("div");
  box.id = "under";
  box.hidden = true;
  document.body.append(box);
  for (const picture of document.querySelectorAll("svg[data-rows]")) {
    const [first, last] = picture.dataset.rows.split(" ").map(Number);
    const rows = JSON.parse(picture.dataset.names);
    picture.addEventListener("pointermove", (event) => {
      const area = picture.getBoundingClientRect();
      const height = (event.clientY - area.top) / area.height;
      const index = Math.floor(((height - first) / (last - first)) * rows.length);
      box.hidden = !(index >= 0 && index < rows.length);
      if (box.hidden) return;
      box.textContent = describe(rows[index]);
      box.style.left = `${Math.min(event.clientX + 14, innerWidth - box.offsetWidth - 8)}px`;
      box.style.top = `${Math.min(event.clientY + 14, innerHeight - box.offsetHeight - 8)}px`;
    });
    picture.addEventListener("pointerleave", () => (box.hidden = true));
  }
})();
