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
