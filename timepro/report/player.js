// ---------------------------------------------------------------- playing
const player = byId("player");
let playing = null, until = Infinity;
function play(clip, from, to) {
  if (!clip.audio) return;
  if (playing !== clip) player.src = clip.audio;
  playing = clip;
  until = to;
  const begin = () => { player.currentTime = from; player.play().catch(() => {}); };
  if (player.readyState >= 1) begin();
  else { player.addEventListener("loadedmetadata", begin, { once: true }); player.load(); }
}
player.addEventListener("timeupdate", () => {
  if (player.currentTime >= until) player.pause();
  for (const mark of document.querySelectorAll(".now")) {
    const on = playing && mark.dataset.clip === playing.id && !player.paused;
    mark.style.display = on ? "" : "none";
    if (on) mark.style.left = (100 * player.currentTime) / playing.duration + "%";
  }
});
