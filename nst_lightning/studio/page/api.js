// The server's endpoints, which are the same that any other program may call.

/** What the server, or the way to it, had against a request: one line, and the setting that it is about. */
export class Refusal extends Error {
  constructor(line, field = null, status = 0) {
    super(line);
    this.field = field;
    this.status = status;
  }
}

async function refusal(response) {
  if (response.status === 401 && !response.url.endsWith("/login")) return new Refusal("The studio asks for its token; reload the page and enter it", null, 401);
  try {
    const { error, field } = await response.json();
    if (error) return new Refusal(error, field ?? null, response.status);
  } catch {
    // no JSON: something before the server has answered
  }
  return new Refusal(`The server answered ${response.status}; try again`, null, response.status);
}

async function ask(method, path, settings = {}) {
  let response;
  try {
    response = await fetch(path, { method, ...settings });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal("The server does not answer; see whether nst studio still runs, then try again");
  }
  if (!response.ok) throw await refusal(response);
  return response;
}

const inJson = (body) => ({ headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
const json = async (...request) => (await ask(...request)).json();

export const login = (token) => ask("POST", "/login", inJson({ token }));
export const facts = () => json("GET", "/api/facts");
export const plan = (asked, signal) => json("POST", "/api/plan", { ...inJson(asked), signal });
export const pictures = () => json("GET", "/api/pictures");
export const submit = (asked) => json("POST", "/api/pictures", inJson(asked));
export const stop = (id) => json("POST", `/api/pictures/${id}/stop`);
export const goOn = (id, body) => json("POST", `/api/pictures/${id}/continue`, inJson(body));
export const larger = (id) => json("POST", `/api/pictures/${id}/larger`, inJson({}));
export const remove = (id) => ask("DELETE", `/api/pictures/${id}`);
export const losses = async (id) => (await json("GET", `/api/pictures/${id}/losses`)).total;
export const command = async (id) => (await ask("GET", `/api/pictures/${id}/command`)).text();
export const configuration = (text) =>
  json("POST", "/api/configuration", { headers: { "Content-Type": "text/yaml" }, body: text });
export const thumbnail = (id) => `/api/uploads/${id}`;

/** Send a picture or a mask; what is plainly too large is not sent at all. */
export function upload(file, kind, limits) {
  const megabytes = file.size / 2 ** 20;
  if (limits && megabytes > limits.megabytes) {
    throw new Refusal(
      `${file.name}: must have at most ${limits.megabytes} MB, got ${megabytes.toFixed(0)} MB; save it smaller`, "file", 413);
  }
  const body = new FormData();
  body.append("kind", kind);
  body.append("file", file, file.name || "picture.png");
  return json("POST", "/api/uploads", { body });
}

/** Listen to all pictures. The browser comes back by itself after most failures; after the others, this does. */
export function listen({ picture, removed, opened, lost }) {
  let source;
  const connect = () => {
    source = new EventSource("/api/events");
    source.addEventListener("open", opened);
    source.addEventListener("picture", (event) => picture(JSON.parse(event.data)));
    source.addEventListener("removed", (event) => removed(JSON.parse(event.data).id));
    source.addEventListener("error", () => {
      lost();
      if (source.readyState === EventSource.CLOSED) setTimeout(connect, 2000);
    });
  };
  connect();
  addEventListener("pagehide", () => source.close()); // a page in the back cache would hold a connection
  addEventListener("pageshow", (event) => event.persisted && connect());
}
