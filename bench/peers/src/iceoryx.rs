//! iceoryx2, as its own benchmarks use it: typed payloads, polling.

use std::path::Path;

use anyhow::{Context, Result, anyhow};
use iceoryx2::active_request::ActiveRequest;
use iceoryx2::pending_response::PendingResponse;
use iceoryx2::port::client::Client;
use iceoryx2::port::publisher::Publisher;
use iceoryx2::port::server::Server;
use iceoryx2::port::subscriber::Subscriber;
use iceoryx2::prelude::*;

use crate::exchange::{End, Message, Role, poll, until_there};

type Kind = ipc::Service;
type ServiceNode = Node<Kind>;

/// Names are the machine's: this exchange's are told from others' by its place.
fn name(place: &Path, what: &str) -> Result<ServiceName> {
    let name = format!("pheromone-bench{}/{what}", place.display());
    name.as_str()
        .try_into()
        .map_err(|error| anyhow!("{name} is no name of a service: {error:?}"))
}

fn node() -> Result<ServiceNode> {
    set_log_level(LogLevel::Error);
    NodeBuilder::new()
        .create::<Kind>()
        .context("a node of iceoryx2")
}

/// A service for each direction.
pub struct Topics {
    into: Publisher<Kind, Message, ()>,
    out_of: Subscriber<Kind, Message, ()>,
    _node: ServiceNode,
}

impl Topics {
    /// Opens both services and waits until the other side has as well.
    ///
    /// # Errors
    /// What iceoryx2 says.
    pub fn open(place: &Path, role: Role) -> Result<Self> {
        let node = node()?;
        let service = |what: &str| {
            node.service_builder(&name(place, what)?)
                .publish_subscribe::<Message>()
                .open_or_create()
                .context("a service of iceoryx2")
        };
        let (there, back) = (service("there")?, service("back")?);
        let (into, out_of) = match role {
            Role::Driver => (&there, &back),
            Role::Responder => (&back, &there),
        };
        let out_of = out_of.subscriber_builder().create()?;
        let into_service = into;
        until_there(|| Ok(into_service.dynamic_config().number_of_subscribers() > 0))?;
        let into = into_service.publisher_builder().create()?;
        let theirs = match role {
            Role::Driver => &back,
            Role::Responder => &there,
        };
        until_there(|| Ok(theirs.dynamic_config().number_of_publishers() > 0))?;
        Ok(Self {
            into,
            out_of,
            _node: node,
        })
    }
}

impl End for Topics {
    fn send(&mut self, message: &Message) -> Result<()> {
        let sample = self.into.loan_uninit()?;
        sample.write_payload(*message).send()?;
        Ok(())
    }

    fn receive(&mut self) -> Result<Message> {
        poll(|| Ok(self.out_of.receive()?.map(|sample| *sample)))
    }
}

/// The side that asks.
pub struct Asker {
    client: Client<Kind, Message, (), Message, ()>,
    asked: Option<PendingResponse<Kind, Message, (), Message, ()>>,
    _node: ServiceNode,
}

impl Asker {
    /// Opens the service and waits for the other side.
    ///
    /// # Errors
    /// What iceoryx2 says.
    pub fn open(place: &Path) -> Result<Self> {
        let node = node()?;
        let service = node
            .service_builder(&name(place, "questions")?)
            .request_response::<Message, Message>()
            .open_or_create()
            .context("a service of iceoryx2")?;
        until_there(|| Ok(service.dynamic_config().number_of_servers() > 0))?;
        Ok(Self {
            client: service.client_builder().create()?,
            asked: None,
            _node: node,
        })
    }
}

impl End for Asker {
    fn send(&mut self, message: &Message) -> Result<()> {
        let request = self.client.loan_uninit()?;
        self.asked = Some(request.write_payload(*message).send()?);
        Ok(())
    }

    fn receive(&mut self) -> Result<Message> {
        let asked = self.asked.take().context("nothing has been asked")?;
        poll(|| Ok(asked.receive()?.map(|response| *response)))
    }
}

/// The side that answers.
pub struct Answerer {
    server: Server<Kind, Message, (), Message, ()>,
    asked: Option<ActiveRequest<Kind, Message, (), Message, ()>>,
    _node: ServiceNode,
}

impl Answerer {
    /// Opens the service.
    ///
    /// # Errors
    /// What iceoryx2 says.
    pub fn open(place: &Path) -> Result<Self> {
        let node = node()?;
        let service = node
            .service_builder(&name(place, "questions")?)
            .request_response::<Message, Message>()
            .open_or_create()
            .context("a service of iceoryx2")?;
        Ok(Self {
            server: service.server_builder().create()?,
            asked: None,
            _node: node,
        })
    }
}

impl End for Answerer {
    fn send(&mut self, message: &Message) -> Result<()> {
        let asked = self.asked.take().context("nothing has been asked")?;
        asked.loan_uninit()?.write_payload(*message).send()?;
        Ok(())
    }

    fn receive(&mut self) -> Result<Message> {
        let asked = poll(|| Ok(self.server.receive()?))?;
        let message = *asked;
        self.asked = Some(asked);
        Ok(message)
    }
}
