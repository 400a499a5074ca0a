// Words of a command line, quoted for a POSIX shell so that they reach the program as they are.

const PLAIN = /^[A-Za-z0-9_/:=.,@%+-]+$/;

/** Return `word` as one word of a shell: as it is where that is safe, else in single quotes. */
export function quoteWord(word) {
  return PLAIN.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}

/** Return a command line of these words. */
export function joinWords(words) {
  return words.map(quoteWord).join(" ");
}
