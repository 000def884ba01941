// Talks to the server. What goes wrong becomes an Error whose message is for people.

async function answerOf(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error("The server does not answer. Is `sdcorr demo` still running?");
  }
  if (response.ok) return response;
  let sentence = `${path}: ${response.status} ${response.statusText}`;
  try {
    sentence = (await response.json()).error ?? sentence;
  } catch { /* no JSON: the status must do */ }
  throw Object.assign(new Error(sentence), { status: response.status });
}

export async function getSetup() {
  return (await answerOf("setup")).json();
}

export async function sendPhoto(file) {
  try {
    await file.arrayBuffer(); // all of it: Firefox reads no byte of a folder without complaint
  } catch {
    throw new Error(`${file.name} cannot be read; expected a photo, no folder`);
  }
  const form = new FormData();
  form.append("photo", file);
  return (await answerOf("photos", { method: "POST", body: form })).json();
}

export function ask(path, body) {
  return answerOf(path, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  });
}
