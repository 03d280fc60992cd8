// What to type into a shell for what the page shows.

// Of one picture its score and its map, of two the comparison.
//   pictures: [{name, url}], with a url where the reader has no such file yet
//   base: the page's address, which may have a path
//   withKey: whether the service asked for one
export function commands(pictures, base, withKey) {
  const address = (path) => quoted(new URL(path, base).href);
  const key = withKey ? ' -H "Authorization: Bearer $KEY"' : "";
  const files = pictures.map(({ name }) => ` -F ${quoted(part(name))}`).join("");
  const fetched = pictures.filter(({ url }) => url).map(({ url }) => `curl -O ${address(url)}`);
  const asked = pictures.length > 1
    ? [`curl${key}${files} ${address("v1/compare")}`]
    : [`curl${key}${files} ${address("v1/complexity")}`,
      `curl${key}${files} -H 'Accept: image/png' ${address("v1/complexity?heatmap=overlay")} > heatmap.png`];
  return [...new Set(fetched), ...asked].join("\n");
}

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

// Commas and semicolons mean something to curl inside -F, quotes keep them from it.
const part = (name) => `file=@"${name.replaceAll("\\", "\\\\").replaceAll('"', '\\"')}"`;
