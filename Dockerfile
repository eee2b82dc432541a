# One image per service: docker build --target coordinator|orchestrator|executor -t tierflow-coordinator:0.1.0 .
# Versions are those of constraints.txt, for what is installed and for what builds it.

FROM python:3.11-slim-bookworm AS build
ENV PIP_CONSTRAINT=/src/constraints.txt PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /src
COPY constraints.txt ./
RUN python -m venv /opt/tierflow && /opt/tierflow/bin/python -m pip install hatchling editables
COPY libs/contracts libs/contracts
COPY libs/runtime libs/runtime
RUN /opt/tierflow/bin/python -m pip install ./libs/contracts ./libs/runtime

FROM build AS build-coordinator
COPY libs/durable libs/durable
COPY libs/expressions libs/expressions
COPY services/coordinator services/coordinator
RUN /opt/tierflow/bin/python -m pip install ./libs/durable ./libs/expressions ./services/coordinator

FROM build AS build-orchestrator
COPY libs/durable libs/durable
COPY libs/expressions libs/expressions
COPY libs/flow libs/flow
COPY services/orchestrator services/orchestrator
RUN /opt/tierflow/bin/python -m pip install ./libs/durable ./libs/expressions ./libs/flow ./services/orchestrator

FROM build AS build-executor
COPY libs/sdk libs/sdk
COPY services/executor services/executor
RUN /opt/tierflow/bin/python -m pip install ./libs/sdk ./services/executor

FROM python:3.11-slim-bookworm AS service
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp
RUN useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin tierflow
WORKDIR /tmp
USER 10001:10001

FROM service AS coordinator
COPY --from=build-coordinator /opt/tierflow /opt/tierflow
EXPOSE 7701
ENTRYPOINT ["/opt/tierflow/bin/python", "-m", "tierflow_coordinator"]

FROM service AS orchestrator
COPY --from=build-orchestrator /opt/tierflow /opt/tierflow
EXPOSE 7702
ENTRYPOINT ["/opt/tierflow/bin/python", "-m", "tierflow_orchestrator"]

# Handlers of your own: FROM this image, install your package, set TIERFLOW_HANDLERS.
FROM service AS executor
COPY --from=build-executor /opt/tierflow /opt/tierflow
EXPOSE 7703
ENTRYPOINT ["/opt/tierflow/bin/python", "-m", "tierflow_executor"]
