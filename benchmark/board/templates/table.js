/* The board: cells with their names, sorting and filtering. */
  const FIGURES = new Set(["shown", "held_out", "exact", "valid", "represents", "uses", "merges"]);
  const MISSING = { represents: "not measured for this row", uses: "not measured for this row", merges: "not measured for this row" };

  /* A cell is short in the file: a verdict, a value and its interval. Here they become elements of their own. */
  const fillFigure = (cell, key, tasks) => {
    const verdict = cell.querySelector("b"), strip = cell.querySelector("svg");
    const text = [...cell.childNodes].filter((node) => node.nodeType === Node.TEXT_NODE).map((node) => node.data).join("").trim();
    const parts = [];
    if (verdict) {
      const tag = make("span", { class: `tag ${verdict.textContent.toLowerCase().replaceAll(" ", "-").replaceAll("/", "")}` }, verdict.textContent);
      if (verdict.title) tag.title = verdict.title;
      parts.push(tag);
    }
    if (cell.dataset.order !== undefined) {
      const cut = text.indexOf(" ");
      parts.push(make("span", { class: "value", title: `n = ${Number(cell.dataset.n || tasks).toLocaleString("en")}` }, text.slice(0, cut)), " ",
        make("span", { class: "ci" }, text.slice(cut + 1)));
    } else if (verdict) parts.push(make("span", { class: "ci why" }, text));
    else parts.push(make("span", { class: "none", title: MISSING[key] || "not defined for this row" }, text));
    if (strip) parts.push(strip);
    cell.replaceChildren(...parts);
    cell.className = "number";
    cell.dataset.order ??= "";
  };
  const fillRow = (row, columns, tasks) => {
    row.setAttribute("role", "row");
    columns.forEach(([key, name], index) => {
      const cell = row.cells[index], text = cell.textContent;
      cell.setAttribute("role", key === "model" ? "rowheader" : "cell");
      cell.dataset.name = name;
      if (FIGURES.has(key)) {
        cell.dataset.key = key;
        fillFigure(cell, key, tasks);
      } else if (key === "model") {
        const family = cell.querySelector(".family");
        cell.dataset.order = cell.firstElementChild.textContent;
        family.dataset.key = "family";
        family.dataset.order = row.dataset.family = family.textContent;
      } else if (key === "status") {
        cell.dataset.order = row.dataset.status = text;
        cell.replaceChildren(make("span", { class: "tag status" }, text.replaceAll("_", " ")));
      } else if (key === "parameters") {
        cell.className = "number";
        cell.dataset.order = text.replace(/\D/g, "");
        if (text.endsWith("*")) cell.replaceChildren(make("span", { class: "claimed", title: "claimed by the authors, not verified" }, text));
      } else {
        cell.className = "rank";
        cell.dataset.order = text === "-" ? "" : text;
      }
    });
  };
  for (const table of document.querySelectorAll("table.board")) {
    const columns = [...table.tHead.rows[0].cells].map((head) => [head.dataset.key, head.textContent]);
    const { tasks } = table.closest(".group").dataset;
    for (const row of table.tBodies[0].rows) fillRow(row, columns, tasks);
  }

  /* Sorting and filtering. */
  const field = (name) => document.getElementById(`f-${name}`);
  const bodies = [...document.querySelectorAll("table.board tbody")];
  const DESCENDING = new Set(["shown", "held_out", "exact", "valid", "represents", "uses", "merges", "parameters"]);
  const cellOf = (row, key) => row.querySelector(`[data-key="${key}"]`) || row.querySelector(`[data-name="${key}"]`);
  const sortBy = (key, descending) => {
    const sign = descending ? -1 : 1;
    for (const body of bodies) {
      const valued = [...body.rows].map((row) => [row, cellOf(row, key).dataset.order]);
      const number = valued.every(([, value]) => value === "" || !Number.isNaN(Number(value)));
      valued.sort(([, a], [, b]) => {
        if (a === "" || b === "") return (a === "") - (b === "");
        return sign * (number ? Number(a) - Number(b) : a.localeCompare(b));
      });
      body.append(...valued.map(([row]) => row));
      for (const head of body.parentElement.tHead.querySelectorAll("th")) {
        if (head.dataset.key === key) head.setAttribute("aria-sort", descending ? "descending" : "ascending");
        else head.removeAttribute("aria-sort");
      }
    }
  };
  const filter = () => {
    const [suite, family, status] = ["suite", "family", "status"].map((name) => field(name).value);
    let count = 0;
    for (const group of document.querySelectorAll(".group")) {
      group.hidden = suite !== "" && group.dataset.suite !== suite;
      let visible = 0;
      for (const row of group.querySelectorAll("table.board tbody tr")) {
        row.hidden = (family !== "" && row.dataset.family !== family) || (status !== "" && row.dataset.status !== status);
        visible += !row.hidden;
      }
      group.querySelector(".empty").hidden = visible > 0;
      count += group.hidden ? 0 : visible;
    }
    document.getElementById("shown").textContent = `${count} ${count === 1 ? "row" : "rows"} shown`;
  };
  for (const name of ["suite", "family", "status"]) field(name).addEventListener("change", filter);
  field("sort").addEventListener("change", (event) => sortBy(event.target.value, DESCENDING.has(event.target.value)));
  document.getElementById("filters").addEventListener("submit", (event) => event.preventDefault());
  for (const head of document.querySelectorAll("table.board thead th")) {
    head.firstElementChild.addEventListener("click", () => {
      const before = head.getAttribute("aria-sort");
      sortBy(head.dataset.key, before ? before === "ascending" : DESCENDING.has(head.dataset.key));
      field("sort").value = head.dataset.key;
    });
  }
  filter();
