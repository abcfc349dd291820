// The events of a pair. A line that was lost is opened again until it holds, also where the browser would give up.

const SILENCE = 13000; // ms; the server says something each 5 s
const RETRY = 2000; // ms after an answer that was no stream

/** Open the stream; `onUpdate(update)` gets each event, `onState(state, text)` "open" or "lost". Returns how to close it. */
export function openStream(pair, onUpdate, onState) {
  let source, watchdog, retry, closed = false;

  function open() {
    source = new EventSource(`/api/stream?pair=${encodeURIComponent(pair)}`);
    source.onmessage = (event) => {
      expect();
      onState("open", "connected");
      onUpdate(JSON.parse(event.data));
    };
    source.onerror = lost;
    expect();
  }

  function expect() {
    clearTimeout(watchdog);
    watchdog = setTimeout(lost, SILENCE);
  }

  function lost() {
    if (closed) return;
    source.close();
    clearTimeout(watchdog);
    clearTimeout(retry);
    onState("lost", "reconnecting …");
    retry = setTimeout(open, RETRY);
  }

  open();
  return () => {
    closed = true;
    source.close();
    clearTimeout(watchdog);
    clearTimeout(retry);
  };
}
