// What the page says: what it is at, how far it has come, and what went wrong.

const $ = (id) => document.getElementById(id);

export function say(sentence) {
  if ($("status").textContent !== sentence) $("status").textContent = sentence; // or it is read aloud again
}

export function fail(error) {
  $("error").textContent = error?.message ?? "";
  $("error").hidden = !error;
}

export function showProgress(state, seconds) {
  $("work").hidden = state === null;
  if (state === null) return;
  say(`${state.step[0].toUpperCase()}${state.step.slice(1)}.`);
  Object.assign($("progress"), { value: state.number, max: state.steps + 1 });
  $("seconds").textContent = `${seconds} s`;
}
