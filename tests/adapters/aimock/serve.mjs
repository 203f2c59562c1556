// The recorded model endpoint: aimock answers from fixtures, and this front keeps each request as it came in.
//
// It listens on a free loopback port, prints its address as the first line, and ends when its standard input closes,
// so that it never outlives the tests. Besides what aimock serves:
//   GET  /recorded        the requests so far: { path, body, status, finished, held }
//   POST /recorded/hold   { "after": n }  answer n more questions to the model and keep the following ones waiting
//   POST /recorded/let-go drop the connections of those that wait, and answer again from now on
//   POST /recorded/reset  forget requests and fixtures
import { createServer } from "@copilotkit/aimock";

let recorded = [];
let waiting = [];
let answerable = Infinity;

const { server, url } = await createServer([], { host: "127.0.0.1", port: 0, logLevel: "silent" });
const [aimock] = server.listeners("request");
server.removeAllListeners("request");
server.keepAliveTimeout = 60_000;

function letGo() {
  answerable = Infinity;
  for (const { entry, response } of waiting.splice(0)) {
    entry.held = false;
    response.destroy();
  }
}

const control = {
  "GET /recorded": () => recorded,
  "POST /recorded/hold": (body) => {
    answerable = body.after;
    return {};
  },
  "POST /recorded/let-go": () => {
    letGo();
    return {};
  },
  "POST /recorded/reset": async () => {
    letGo();
    recorded = [];
    return (await fetch(`${url}/__aimock/reset`, { method: "POST" })).json();
  },
};

function whenRead(request, then) {
  const chunks = [];
  request.on("data", (chunk) => chunks.push(chunk));
  request.on("end", () => {
    const text = Buffer.concat(chunks).toString("utf8");
    let body = text;
    try {
      body = text === "" ? null : JSON.parse(text);
    } catch {
      // Kept as text: a request that isn't JSON is evidence too.
    }
    then(body);
  });
}

server.on("request", (request, response) => {
  const path = request.url.split("?")[0];
  const answer = control[`${request.method} ${path}`];
  if (answer !== undefined) {
    whenRead(request, async (body) => response.end(JSON.stringify(await answer(body))));
    return;
  }
  if (path.startsWith("/__aimock")) {
    aimock(request, response);
    return;
  }
  // SDKs ask when they like whether the server lives, and which models there are: that neither counts nor waits.
  const counts = request.method === "POST";
  const held = counts && answerable <= 0;
  const entry = { path, headers: request.headers, body: null, status: null, finished: false, held };
  recorded.push(entry);
  response.on("finish", () => (entry.finished = true));
  response.on("close", () => (entry.status = response.headersSent ? response.statusCode : null));
  if (held) {
    waiting.push({ entry, response });
  } else {
    answerable -= counts ? 1 : 0;
    aimock(request, response);
  }
  // In the same tick as aimock's own listeners, so that both hear the whole body.
  whenRead(request, (body) => (entry.body = body));
});

process.stdin.resume();
process.stdin.on("end", () => process.exit(0));
console.log(url);
