// Package emulator runs the services that twinegress sends to, inside one
// process: an AMQP 1.0 namespace with event hubs and Service Bus topics, Event
// Grid topics over HTTPS, and (see StartKafka) a Kafka broker to feed from.
//
// The official SDKs talk to it unmodified. It checks what the real services
// check (SAS signatures and expiry, entity names, size limits, the Event Grid
// schema), counts what arrives, keeps the last messages when asked to, and can be
// told at run time to misbehave: see Fault.
//
// It is built to be cheap, because benchmarks share the machine with it: a
// delivery is counted by walking the section headers of its messages, nothing
// is decoded before somebody asks for it, and no goroutine belongs to a message.
//
//	e, err := emulator.Start(ctx, emulator.Config{
//		Hubs:            []emulator.Hub{{Name: "twins"}},
//		Topics:          []emulator.Topic{{Name: "alerts"}},
//		EventGridTopics: []emulator.GridTopic{{Name: "grid"}},
//	})
//	defer e.Close()
//	client, err := azeventhubs.NewProducerClientFromConnectionString(
//		e.ConnectionString(emulator.Primary), "twins", nil)
//	...
//	e.SetFault("twins", emulator.Fault{RejectKey: "primary"})
//	fmt.Println(e.Stats().Entity("twins").Count)
package emulator
