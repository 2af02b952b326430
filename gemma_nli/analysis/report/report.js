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

  // Parallel axes need room: a narrow screen shows as many settings as fit, the most important first, and the score.
  const AXIS = 84;
  const fitting = (place, figure) => {
    const axes = figure.data[0].dimensions, room = Math.max(2, Math.floor((place.clientWidth - 60) / AXIS));
    const few = axes.length > room ? [...axes.slice(0, room - 1), axes[axes.length - 1]] : axes;
    let said = place.parentNode.querySelector(".more");
    if (!said) place.after(said = Object.assign(document.createElement("p"), { className: "more" }));
    said.textContent = few === axes ? "" : `The first ${few.length - 1} of ${axes.length - 1} settings: a wider screen shows all.`;
    return [Object.assign({}, figure.data[0], { dimensions: few })];
  };
  // A map's numbers are shown where its cells are wide enough for them; the table below has all.
  const readable = (place, figure) => figure.data.map((trace) =>
    trace.type === "heatmap" && (place.clientWidth - 150) / trace.x.length < 38 ? Object.assign({}, trace, { texttemplate: "" }) : trace);

  const drawAll = () => {
    for (const [name, figure] of Object.entries(figures)) {
      const place = document.getElementById("plot-" + name);
      for (const axis of ["xaxis", "yaxis"]) if (figure.data[0].type !== "parcoords") figure.layout[axis] = figure.layout[axis] || {};
      for (const [path, value] of Object.entries(themed(figure.layout))) put(figure.layout, path, value);
      for (const trace of figure.data) if (trace.type === "parcoords") for (const [path, value] of Object.entries(inks())) put(trace, path, value);
      figure.layout.font = Object.assign({ family: "system-ui, sans-serif", size: 13 }, figure.layout.font);
      figure.layout.hoverlabel = Object.assign({ align: "left" }, figure.layout.hoverlabel);
      const data = figure.data[0].type === "parcoords" ? fitting(place, figure) : readable(place, figure);
      Plotly.newPlot(place, data, figure.layout, { responsive: true, displaylogo: false, displayModeBar: false });
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
  // Columns that do not fit are announced, not hidden.
  const announce = () => {
    for (const box of document.querySelectorAll(".scroll")) {
      let said = box.nextElementSibling?.classList.contains("more") ? box.nextElementSibling : null;
      const hidden = box.scrollWidth > box.clientWidth + 1;
      if (hidden && !said) box.after(said = Object.assign(document.createElement("p"), { className: "more" }));
      if (said) said.textContent = hidden ? "More columns: scroll sideways \u2192" : "";
    }
  };
  announce();
  document.addEventListener("toggle", announce, true);
  let width = innerWidth;
  addEventListener("resize", () => {
    announce();
    if (width === innerWidth) return;
    width = innerWidth;
    for (const [name, figure] of Object.entries(figures)) {
      if (figure.data[0].type !== "parcoords") continue;
      const place = document.getElementById("plot-" + name);
      for (const [path, value] of Object.entries(inks())) put(figure.data[0], path, value);
      Plotly.react(place, fitting(place, figure), place.layout);
    }
  });
  root.dataset.ready = "yes";
})();
