// every table sorts by a click on a heading: the first number of each cell, else its text
for (const table of document.querySelectorAll("table")) {
  const body = table.tBodies[0], rows = Array.from(body.rows);
  const grid = [];
  Array.from(table.tHead.rows).forEach((row, r) => {
    let c = 0;
    for (const cell of row.cells) {
      while (grid[r] && grid[r][c]) c++;
      for (let i = 0; i < cell.rowSpan; i++) for (let j = 0; j < cell.colSpan; j++) {
        (grid[r + i] = grid[r + i] || [])[c + j] = cell;
      }
      c += cell.colSpan;
    }
  });
  const heads = grid[grid.length - 1];
  const key = (row, k) => {
    const text = row.cells[k].textContent.trim().replace(/\u2212/g, "-").replace(/,/g, "");
    const number = text.match(/[-+]?[0-9.]+/);
    return k > 0 && number ? parseFloat(number[0]) : text;
  };
  heads.forEach((head, k) => {
    const button = document.createElement("button");
    button.type = "button";
    while (head.firstChild) button.appendChild(head.firstChild);
    head.appendChild(button);
    let way = -1;
    button.addEventListener("click", () => {
      way = -way;
      const order = (a, b) => {
        const x = key(a, k), y = key(b, k);
        if (typeof x !== typeof y) return typeof x === "number" ? -1 : 1;
        return (x < y ? 1 : x > y ? -1 : 0) * way * (k === 0 ? -1 : 1);
      };
      rows.sort(order).forEach(row => body.appendChild(row));
      heads.forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", (way > 0) === (k > 0) ? "descending" : "ascending");
    });
  });
}
const filter = document.getElementById("filter");
filter.addEventListener("input", () => {
  const wanted = filter.value.trim().toLowerCase();
  for (const row of document.querySelectorAll("tbody tr")) {
    const arm = row.querySelector("th.arm");
    row.hidden = Boolean(arm) && !["single", "equal"].includes(arm.textContent) && !arm.textContent.toLowerCase().includes(wanted);
  }
});
document.getElementById("filtering").hidden = false;
