// Requests to ingest with the session's cookie. The header proves that this page sends them, and no
// other site.

const OWN = { "X-Requested-With": "millstream" };

export class ApiError extends Error {}

/** The JSON of an answer. Throws ApiError with the server's message; reloads without a session. */
export async function call(method, path, body) {
  const headers = body === undefined ? OWN : { ...OWN, "Content-Type": "application/json" };
  let response;
  try {
    const content = body === undefined ? undefined : JSON.stringify(body);
    response = await fetch(path, { method, headers, body: content });
  } catch {
    throw new ApiError("Ingest does not answer. Check that it is running.");
  }
  if (response.status === 401) {
    location.reload();
    return new Promise(() => {});
  }
  const text = await response.text();
  const answer = text ? JSON.parse(text) : null;
  if (!response.ok)
    throw new ApiError(answer?.detail || answer?.title || `status ${response.status}`);
  return answer;
}

/** The path with the parameters that have a value. */
export function withQuery(path, parameters) {
  const query = new URLSearchParams(Object.entries(parameters).filter(([, value]) => value));
  return query.size ? `${path}?${query}` : path;
}
