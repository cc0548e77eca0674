"use strict";
for (const table of document.querySelectorAll("table.sortable")) {
  table.classList.add("live");
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") === "ascending";
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const key = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
    const order = (one, other) => {
      const [a, b] = [parseFloat(key(one)), parseFloat(key(other))];
      if (column > 0 && !(isNaN(a) && isNaN(b))) return isNaN(a) ? 1 : isNaN(b) ? -1 : down ? b - a : a - b;
      const words = key(one).localeCompare(key(other), undefined, {numeric: true});
      return down ? -words : words;
    };
    table.tBodies[0].append(...[...table.tBodies[0].rows].sort(order));
  }));
}
