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
{
  const choice = document.querySelector("select.costs");
  if (choice) {
    const show = () => {
      for (const figure of document.querySelectorAll("figure.tradeoff")) {
        figure.hidden = figure.dataset.cost !== choice.value;
      }
    };
    choice.parentElement.hidden = false;
    choice.addEventListener("change", show);
    show();
  }
  const keys = [...document.querySelectorAll("button.key")];
  let kept = null;
  const light = (model) => {
    document.body.classList.toggle("lighting", model !== null);
    for (const part of document.querySelectorAll("[data-model]")) {
      part.classList.toggle("lit", part.dataset.model === model);
    }
  };
  for (const key of keys) {
    const model = key.dataset.model;
    for (const event of ["pointerenter", "focus"]) key.addEventListener(event, () => light(model));
    for (const event of ["pointerleave", "blur"]) key.addEventListener(event, () => light(kept));
    key.addEventListener("click", () => {
      kept = kept === model ? null : model;
      for (const other of keys) other.setAttribute("aria-pressed", String(other.dataset.model === kept));
      light(kept);
    });
  }
}
