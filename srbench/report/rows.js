// The rows behind a number of the map, and two methods side by side. Pictures are copies of the gallery's.
(() => {
  const said = JSON.parse(document.getElementById("verdicts").textContent);
  const FEW = 40;
  document.documentElement.classList.add("scripted");

  function element(name, text, className) {
    const made = document.createElement(name);
    if (text) made.textContent = text;
    if (className) made.className = className;
    return made;
  }

  // Whether a mark is good news: "1" says that the rate holds of the row.
  const good = (better, mark) => (mark === "1") === (better === "higher");

  // The untouched model, with whatever options it was run with.
  const untouched = (name) => name === "none" || name.startsWith("none (");

  function shots(article, methods) {
    const wall = element("div", "", "wall");
    for (const shot of article ? article.querySelectorAll(".shot") : []) {
      const name = shot.dataset.method;
      if (methods.includes(name) || (methods.includes("none") && untouched(name))) wall.append(shot.cloneNode(true));
    }
    return wall;
  }

  function line(board, index, methods, verdict) {
    const [id, prompt, kind, at] = board.rows[index];
    const made = element("div", "", "line"), words = element("p");
    const quoted = element("q");
    quoted.append(element("bdi", prompt));
    words.append(verdict, " ", quoted, " ", element("span", `${id}, ${kind}`, "small muted"));
    made.append(words);
    const article = at && document.getElementById(at);
    const wall = shots(article, methods);
    if (wall.childElementCount) made.append(wall);
    const traces = article ? [...article.querySelectorAll(".trace")].filter((each) => methods.includes(each.dataset.method)) : [];
    if (traces.length) {
      const more = element("details");
      more.append(element("summary", "what the methods did"), ...traces.map((each) => each.cloneNode(true)));
      made.append(more);
    }
    return made;
  }

  function tag(text, bad) { return element("span", text, bad ? "tag bad" : "tag"); }

  // --- the rows of one number

  const dialog = document.getElementById("cell"), list = document.getElementById("cell-rows");
  const more = document.getElementById("cell-more");
  let waiting = [];

  function showMore() {
    list.append(...waiting.splice(0, FEW).map((make) => make()));
    more.hidden = !waiting.length;
    more.textContent = `More rows (${waiting.length})`;
  }

  function open(link) {
    const { board: number, metric, of } = link.dataset, board = said[number];
    const marks = board && board.marks[metric] && board.marks[metric][of];
    document.getElementById("cell-title").textContent = link.title;
    list.replaceChildren();
    waiting = [];
    if (!marks) {
      document.getElementById("cell-about").textContent =
        "The rows of this number are not here: it is a summary. srbench run makes them.";
    } else {
      const better = board.better[metric], sure = board.sure[of] || [];
      const chosen = [...marks].map((mark, index) => [mark, index]).filter(([mark]) => mark !== "-");
      const rank = ([mark, index]) => (mark === "1" || mark === "0") && good(better, mark) ? 2 : 0;
      const bare = ([, index]) => board.rows[index][3] ? 0 : 1;
      chosen.sort((a, b) => bare(a) - bare(b) || rank(a) - rank(b) || a[1] - b[1]);
      const failed = chosen.filter((each) => rank(each) === 0).length;
      const shown = chosen.filter(([, index]) => board.rows[index][3]).length;
      document.getElementById("cell-about").textContent =
        `${chosen.length} rows, ${failed} of them against the method; ${shown} with pictures on this page, which come first.`;
      waiting = chosen.map(([mark, index]) => () => {
        const [holds, not] = board.words[metric];
        const text = mark === "?" ? "could not be judged" : mark === "1" ? holds : not;
        const told = /^(fsr|asr)/.test(metric) && typeof sure[index] === "number";
        const number = told ? ` (judge ${sure[index].toFixed(2)})` : "";
        return line(board, index, ["reference", "none", of], tag(text + number, !rank([mark, index])));
      });
    }
    showMore();
    dialog.showModal();
    dialog.scrollTop = 0;
  }

  more.addEventListener("click", showMore);
  document.addEventListener("click", (event) => {
    const link = event.target.closest(".map a[data-board]");
    if (link && !event.ctrlKey && !event.metaKey && !event.shiftKey) {
      event.preventDefault();
      open(link);
    } else if (event.target === dialog) {
      dialog.close();
    }
  });

  // --- two methods side by side

  const pair = document.getElementById("pair"), fields = pair.elements;
  let flips = [];

  function fill(select, names) {
    const before = select.value;
    select.replaceChildren(...names.map((name) => new Option(name, name)));
    if (names.includes(before)) select.value = before;
  }

  function ofBoard() {
    const board = said[fields.board.value];
    fill(fields.metric, Object.keys(board.marks));
    ofMetric();
  }

  function ofMetric() {
    const names = Object.keys(said[fields.board.value].marks[fields.metric.value]);
    const fresh = !fields.two.value;
    fill(fields.one, names);
    fill(fields.two, names);
    if (fresh && names.includes(pair.dataset.one) && names.includes(pair.dataset.two)) {
      fields.one.value = pair.dataset.one;
      fields.two.value = pair.dataset.two;
    }
    chosen(fields.one);
  }

  // Two of one name say nothing: the one that was not just chosen goes on to the next.
  function chosen(by) {
    const names = [...fields.one.options].map((option) => option.value), other = by === fields.two ? fields.one : fields.two;
    if (fields.one.value === fields.two.value && names.length > 1) {
      other.value = names[(names.indexOf(other.value) + 1) % names.length];
    }
    const board = said[fields.board.value], marks = board.marks[fields.metric.value];
    const better = board.better[fields.metric.value], one = marks[fields.one.value], two = marks[fields.two.value];
    const both = [...one].map((mark, index) => index).filter((index) => "01".includes(one[index]) && "01".includes(two[index]));
    flips = both.filter((index) => one[index] !== two[index]);
    flips.sort((a, b) => (board.rows[a][3] ? 0 : 1) - (board.rows[b][3] ? 0 : 1) || a - b);
    const wins = flips.filter((index) => good(better, one[index])).length;
    const well = both.filter((index) => one[index] === two[index] && good(better, one[index])).length;
    const seen = flips.filter((index) => board.rows[index][3]).length;
    document.getElementById("tally").textContent = `Of ${both.length} rows ${fields.one.value} is better on ${wins}, ` +
      `${fields.two.value} on ${flips.length - wins}; both do well on ${well} and badly on ${both.length - flips.length - well}. ` +
      `${flips.length} ${flips.length === 1 ? "row" : "rows"} to look at, ${seen} of them with pictures.`;
    fields.at.max = Math.max(1, flips.length);
    fields.at.value = 1;
    show();
  }

  function show() {
    const place = document.getElementById("flip"), board = said[fields.board.value], index = flips[fields.at.value - 1];
    fields.at.disabled = fields.before.disabled = fields.after.disabled = flips.length < 2;
    place.replaceChildren();
    if (index === undefined) return;
    const methods = [fields.one.value, fields.two.value], better = board.better[fields.metric.value];
    const marks = board.marks[fields.metric.value], [holds, not] = board.words[fields.metric.value];
    const winner = methods.find((name) => good(better, marks[name][index]));
    const told = methods.map((name) => `${name}: ${marks[name][index] === "1" ? holds : not}`).join(", ");
    const made = line(board, index, methods, tag(`${fields.at.value} of ${flips.length}; ${told}; ${winner} is better`));
    if (!board.rows[index][3]) made.append(element("p", "No picture of this row is on this page.", "small muted"));
    place.append(made);
  }

  function step(by) {
    fields.at.value = Number(fields.at.value) + by;
    show();
  }

  if (fields.board.options.length) {
    document.getElementById("compare").hidden = false;
    fields.board.addEventListener("change", ofBoard);
    fields.metric.addEventListener("change", ofMetric);
    fields.one.addEventListener("change", () => chosen(fields.one));
    fields.two.addEventListener("change", () => chosen(fields.two));
    fields.at.addEventListener("input", show);
    fields.before.addEventListener("click", () => step(-1));
    fields.after.addEventListener("click", () => step(1));
    pair.addEventListener("submit", (event) => event.preventDefault());
    if (pair.dataset.board) fields.board.value = pair.dataset.board;
    ofBoard();
    if ([...fields.metric.options].some((option) => option.value === pair.dataset.metric)) {
      fields.metric.value = pair.dataset.metric;
      ofMetric();
    }
  } else {
    for (const link of document.querySelectorAll('a[href="#compare"]')) link.parentElement.remove();
  }
})();
