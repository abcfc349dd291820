// Questions to the server, asked again for as long as somebody wants to know.

export const NO_ANSWER = 3000; // ms after a question that failed

const turns = new Map(); // how often each question was put anew, so that an answer to an earlier one is dropped

const failed = (text, status) => Object.assign(new Error(text), { status });

/** The answer to a question; an error with a `status` (0 of a line that is down) says why there is none. */
export async function ask(path, parameters) {
  const response = await fetch(`${path}?${new URLSearchParams(parameters)}`).catch(() => {
    throw failed("The dashboard does not answer.", 0);
  });
  // A proxy in between answers with a page of its own.
  const isOurs = response.headers.get("Content-Type")?.startsWith("application/json");
  const answer = isOurs ? await response.json() : { error: `The dashboard cannot be had: status ${response.status}.` };
  if (!response.ok || !isOurs) throw failed(answer.error, response.status);
  return answer;
}

/** Ask it no more, and drop an answer that is on its way. */
export function stop(question) {
  turns.set(question, (turns.get(question) ?? 0) + 1);
}

/** Ask again and again, until the question is stopped or put anew; it returns after how many ms. */
export async function repeat(question, onError) {
  stop(question);
  const mine = turns.get(question);
  const isWanted = () => turns.get(question) === mine;
  while (isWanted()) {
    let pause = NO_ANSWER;
    try {
      pause = await question(isWanted);
    } catch (error) {
      if (error.status === undefined) throw error; // a fault in here, and no answer that may be better the next time
      if (isWanted()) onError(error.message);
    }
    await new Promise((resolve) => setTimeout(resolve, document.hidden ? pause * 4 : pause));
  }
}
