(() => {
  "use strict";
  const root = document.documentElement;
  const button = document.getElementById("theme");
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const style = (name) => getComputedStyle(root).getPropertyValue(name).trim();

  const themed = (layout) => {
    const ink = style("--ink"), line = style("--line");
    const changed = { "font.color": ink, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)" };
    for (const key of Object.keys(layout)) {
      if (/^[xy]axis\d*$/.test(key)) {
        for (const part of ["gridcolor", "linecolor", "zerolinecolor"]) changed[key + "." + part] = line;
      }
    }
    changed["hoverlabel.bgcolor"] = style("--card");
    changed["hoverlabel.font.color"] = ink;
    return changed;
  };
  const put = (object, path, value) => {
    const words = path.split(".");
    const last = words.pop();
    for (const word of words) object = object[word] = object[word] || {};
    object[last] = value;
  };
  const inks = () => ({ "labelfont.color": style("--ink"), "tickfont.color": style("--ink"), "rangefont.color": style("--soft") });

  const drawAll = () => {
    for (const [name, figure] of Object.entries(figures)) {
      const place = document.getElementById("plot-" + name);
      for (const axis of ["xaxis", "yaxis"]) if (figure.data[0].type !== "parcoords") figure.layout[axis] = figure.layout[axis] || {};
      for (const [path, value] of Object.entries(themed(figure.layout))) put(figure.layout, path, value);
      for (const trace of figure.data) if (trace.type === "parcoords") for (const [path, value] of Object.entries(inks())) put(trace, path, value);
      figure.layout.font = Object.assign({ family: "system-ui, sans-serif", size: 13 }, figure.layout.font);
      figure.layout.hoverlabel = Object.assign({ align: "left" }, figure.layout.hoverlabel);
      Plotly.newPlot(place, figure.data, figure.layout, { responsive: true, displaylogo: false, displayModeBar: false });
    }
  };
  const paint = () => {
    for (const name of Object.keys(figures)) {
      const place = document.getElementById("plot-" + name);
      Plotly.relayout(place, themed(place.layout));
      place.data.forEach((trace, index) => { if (trace.type === "parcoords") Plotly.restyle(place, inks(), [index]); });
    }
  };
  const setTheme = (theme) => {
    root.dataset.theme = theme;
    button.textContent = theme === "dark" ? "Light" : "Dark";
    button.setAttribute("aria-label", "switch to the " + (theme === "dark" ? "light" : "dark") + " theme");
  };
  const wanted = matchMedia("(prefers-color-scheme: dark)");
  setTheme(wanted.matches ? "dark" : "light");
  drawAll();
  button.addEventListener("click", () => { setTheme(root.dataset.theme === "dark" ? "light" : "dark"); paint(); });
  wanted.addEventListener("change", (event) => { setTheme(event.matches ? "dark" : "light"); paint(); });

  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.setAttribute("aria-sort", "none"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const value = (row) => row.cells[column].dataset.v ?? row.cells[column].textContent;
      const body = table.tBodies[0];
      const rows = [...body.rows].map((row) => [value(row), row]);
      rows.sort(([a], [b]) => {
        if (a === "" || b === "") return (a === "") - (b === "");
        const order = isNaN(a) || isNaN(b) ? String(a).localeCompare(String(b), undefined, { numeric: true }) : a - b;
        return down ? -order : order;
      });
      body.append(...rows.map(([, row]) => row));
    }));
  }
  root.dataset.ready = "yes";
})();
