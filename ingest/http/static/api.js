// Requests to ingest with the session's cookie. The header shows that the page itself asks, and no other site.

const OWN = { "X-Requested-With": "millstream" };

export class ApiError extends Error {}

/** The JSON of an answer. Throws ApiError with the server's words; without a session the page asks to sign in. */
export async function call(method, path, body) {
  const headers = body === undefined ? OWN : { ...OWN, "Content-Type": "application/json" };
  let response;
  try {
    response = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  } catch {
    throw new ApiError("ingest does not answer");
  }
  if (response.status === 401) {
    location.reload();
    return new Promise(() => {});
  }
  const text = await response.text();
  const answer = text ? JSON.parse(text) : null;
  if (!response.ok) throw new ApiError(answer?.detail || answer?.title || `status ${response.status}`);
  return answer;
}

/** The path with those parameters that have a value. */
export function withQuery(path, parameters) {
  const query = new URLSearchParams(Object.entries(parameters).filter(([, value]) => value));
  return query.size ? `${path}?${query}` : path;
}
