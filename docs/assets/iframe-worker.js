// From a disk (file://) a browser starts no worker, and the search needs one: a hidden frame does the same work
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      this.frame.answer = data => this.dispatchEvent(new MessageEvent("message", { data }));
      this.frame.srcdoc = `<script>
        importScripts = () => {}; // languages but English
        postMessage = data => frameElement.answer(data);
      </script><script src="${url}"></script>`;
      this.ready = new Promise(loaded => (this.frame.onload = loaded));
      document.body.append(this.frame);
    }
    postMessage(data) {
      this.ready.then(() => this.frame.contentWindow.dispatchEvent(new MessageEvent("message", { data })));
    }
    terminate() {
      this.frame.remove();
    }
  };
}

// To the search a leading "-" means "without": who types --fail-under looks for the option
const post = Worker.prototype.postMessage;
Worker.prototype.postMessage = function (message) {
  const query = typeof message?.data === "string" ? { ...message, data: message.data.replace(/(^|\s)-+/g, "$1") } : message;
  return post.call(this, query);
};
