"use strict";
(() => {
  const element = (id) => document.getElementById(id);
  const data = JSON.parse(element("data").textContent);
  const screen = document.querySelector(".screen");
  const scrubber = element("scrubber");
  const divider = element("divider");
  const play = element("play");
  const plots = [...document.querySelectorAll("svg[data-start]")];
  const shotButtons = [...document.querySelectorAll(".timeline button")];
  let playing = null;

  const chosen = (side) => document.querySelector(`input[name=${side}]:checked`).value;
  const shotOf = (frame) => data.shots.findIndex(([start, stop]) => start <= frame && frame < stop);

  function show() {
    const position = Number(scrubber.value);
    const frame = data.frames[position];
    const shot = shotOf(frame);
    for (const side of ["left", "right"]) {
      const layer = data.layers[chosen(side)];
      element(side).src = layer.uris[position];
      element(`${side}-name`).textContent = layer.title;
    }
    const where = data.shots.length > 1 ? `, shot ${shot + 1}` : "";
    const text = `${data.seconds[position].toFixed(2)} s, frame ${frame}${where}`;
    element("time").textContent = text;
    scrubber.setAttribute("aria-valuetext", text);
    shotButtons.forEach((button, number) => button.classList.toggle("now", number === shot));
    plots.forEach((plot) => markTime(plot, data.seconds[position]));
  }

  function markTime(plot, seconds) {
    const { left, right, start, stop } = plot.dataset;
    const share = Math.min(1, Math.max(0, (seconds - start) / (stop - start)));
    const x = Number(left) + share * (right - left);
    const cursor = plot.querySelector(".cursor");
    cursor.setAttribute("x1", x);
    cursor.setAttribute("x2", x);
  }

  function split() {
    screen.style.setProperty("--split", `${divider.value}%`);
  }

  function pause() {
    cancelAnimationFrame(playing);
    playing = null;
    play.textContent = "▶";
    play.setAttribute("aria-label", "Play");
  }

  function start() {
    const last = data.seconds.length - 1;
    if (last < 1) return;
    let position = Number(scrubber.value) === last ? 0 : Number(scrubber.value);
    let offset = performance.now() / 1000 - data.seconds[position];
    const hold = data.seconds[last] - data.seconds[last - 1];
    play.textContent = "❚❚";
    play.setAttribute("aria-label", "Pause");
    const step = () => {
      const seconds = performance.now() / 1000 - offset;
      if (seconds > data.seconds[last] + hold) {
        offset = performance.now() / 1000 - data.seconds[0];
        position = 0;
      }
      while (position < last && data.seconds[position + 1] <= seconds) position += 1;
      if (Number(scrubber.value) !== position) {
        scrubber.value = position;
        show();
      }
      playing = requestAnimationFrame(step);
    };
    playing = requestAnimationFrame(step);
  }

  scrubber.addEventListener("input", () => { pause(); show(); });
  divider.addEventListener("input", split);
  play.addEventListener("click", () => (playing === null ? start() : pause()));
  document.querySelectorAll("fieldset input").forEach((choice) => choice.addEventListener("change", show));
  shotButtons.forEach((button) => button.addEventListener("click", () => {
    pause();
    const wanted = Number(button.dataset.frame);
    const first = data.frames.findIndex((frame) => frame >= wanted);
    scrubber.value = first < 0 ? data.frames.length - 1 : first;
    show();
  }));
  split();
  show();
})();
