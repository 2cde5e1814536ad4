// AMI to NATS with asterisk-manager and nats of npm: asterisk-manager-nats.js PORT URL PREFIX
const { connect, JSONCodec } = require("nats");
const manager = require("asterisk-manager");

async function main(port, url, prefix) {
  const bus = await connect({ servers: url });
  const codec = JSONCodec();
  const ami = manager(port, "127.0.0.1", "amibus", "amibus", true);
  ami.on("managerevent", (event) => bus.publish(`${prefix}.event.pbx1.${event.event}`, codec.encode(event)));
  ami.once("response", () => console.log("ready"));
}

main(...process.argv.slice(2));
