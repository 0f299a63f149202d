// The player: jumping to a time, the transcript beside it, and keys while it has the focus.

const player = document.getElementById("player");

/** Seconds of "1:02:03", "2:03" or "123"; NaN for anything else. */
function seconds(text) {
  return text.trim().split(":").reduce((sum, part) => (/^\d+$/.test(part) ? sum * 60 + Number(part) : NaN), 0);
}

function clock(at) {
  const whole = Math.floor(at);
  const rest = String(whole % 60).padStart(2, "0");
  const minutes = Math.floor(whole / 60);
  return minutes < 60 ? `${minutes}:${rest}` : `${Math.floor(minutes / 60)}:${String(minutes % 60).padStart(2, "0")}:${rest}`;
}

function seek(to) {
  const end = Number.isFinite(player.duration) ? player.duration : Infinity;
  player.currentTime = Math.min(Math.max(to, 0), end);
}

const KEYS = {
  ArrowLeft: () => seek(player.currentTime - 5),
  ArrowRight: () => seek(player.currentTime + 5),
  j: () => seek(player.currentTime - 10),
  l: () => seek(player.currentTime + 10),
  k: () => (player.paused ? player.play() : player.pause()),
  f: () => (document.fullscreenElement ? document.exitFullscreen() : player.requestFullscreen()),
};

function jumping() {
  const form = document.getElementById("jump");
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const to = seconds(form.elements.time.value);
    if (Number.isFinite(to)) {
      seek(to);
    }
  });
  form.addEventListener("click", (event) => {
    const by = event.target.closest("[data-seek]")?.dataset.seek;
    if (by) {
      seek(player.currentTime + Number(by));
    }
  });
  document.getElementById("speed").addEventListener("change", (event) => {
    player.playbackRate = Number(event.target.value);
  });
  player.addEventListener("keydown", (event) => {
    const act = event.ctrlKey || event.altKey || event.metaKey ? undefined : KEYS[event.key];
    if (act) {
      event.preventDefault();
      act();
    }
  });
  const wanted = /^#t=([\d:]+)$/.exec(location.hash);
  if (wanted) {
    player.addEventListener("loadedmetadata", () => seek(seconds(wanted[1])), { once: true });
  }
}

function transcript(track) {
  const list = document.getElementById("cues");
  const lines = new Map();
  for (const cue of track.cues) {
    const line = document.createElement("li");
    const button = document.createElement("button");
    const time = document.createElement("time");
    time.textContent = clock(cue.startTime);
    const text = document.createElement("span");
    text.textContent = cue.getCueAsHTML().textContent;
    button.type = "button";
    button.append(time, text);
    button.addEventListener("click", () => seek(cue.startTime));
    line.append(button);
    list.append(line);
    lines.set(cue, button);
  }
  track.addEventListener("cuechange", () => {
    for (const button of lines.values()) {
      button.removeAttribute("aria-current");
    }
    for (const cue of track.activeCues) {
      const button = lines.get(cue);
      button?.setAttribute("aria-current", "true");
      if (button && !list.contains(document.activeElement)) {
        list.scrollTop = button.parentElement.offsetTop - list.offsetTop - list.clientHeight / 3;
      }
    }
  });
  document.getElementById("find").addEventListener("input", (event) => {
    const wanted = event.target.value.trim().toLocaleLowerCase();
    for (const button of lines.values()) {
      button.parentElement.hidden = !button.lastElementChild.textContent.toLocaleLowerCase().includes(wanted);
    }
  });
}

if (player) {
  jumping();
  const element = player.querySelector("track");
  if (element) {
    const track = element.track;
    if (track.mode === "disabled") {
      track.mode = "hidden";
    }
    if (element.readyState === HTMLTrackElement.LOADED) {
      transcript(track);
    } else {
      element.addEventListener("load", () => transcript(track), { once: true });
    }
  }
}
