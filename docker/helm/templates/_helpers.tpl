{{- define "clicv2.name" -}}
{{- contains .Chart.Name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name .Chart.Name) | trunc 50 | trimSuffix "-" }}
{{- end }}

{{/* Labels that select a component's pods; they can never change. Takes (list . "gateway"). */}}
{{- define "clicv2.selector" -}}
app.kubernetes.io/name: {{ (index . 0).Chart.Name }}
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "clicv2.labels" -}}
{{ include "clicv2.selector" . }}
app.kubernetes.io/version: {{ (index . 0).Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ (index . 0).Release.Service }}
{{- end }}

{{- define "clicv2.image" -}}
{{- $root := index . 0 -}}
{{ $root.Values.image.prefix }}clicv2-{{ index . 1 }}:{{ $root.Values.image.tag | default $root.Chart.AppVersion }}
{{- end }}

{{/* As in docker-compose.yml: nothing to write to, nothing to become. Takes (list . component uid). */}}
{{- define "clicv2.pod" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
{{- $own := index $root.Values $component -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: {{ index . 2 }}
  runAsGroup: {{ index . 2 }}
  fsGroup: {{ index . 2 }}
  seccompProfile: {type: RuntimeDefault}
{{- with $root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
# Above the 20 s within which a drain ends, with the notice before it.
terminationGracePeriodSeconds: 40
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{- include "clicv2.selector" . | nindent 8 }}
{{- with $own.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $own.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "clicv2.container" -}}
{{- $root := index . 0 -}}
imagePullPolicy: {{ $root.Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}

{{/* Gateway and worker are the same but for their command and what they connect to. */}}
{{- define "clicv2.service-pod" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
{{- $own := index $root.Values $component -}}
{{ include "clicv2.pod" (list $root $component 10001) }}
containers:
  - name: {{ $component }}
    image: {{ include "clicv2.image" . | quote }}
    {{- include "clicv2.container" . | nindent 4 }}
    args: [{{ eq $component "gateway" | ternary "serve" "worker" }}]
    ports:
      - {name: http, containerPort: 8000}
    envFrom:
      - configMapRef: {name: {{ include "clicv2.name" $root }}}
    env:
      - name: CLICV2_REDIS_URL
        valueFrom:
          secretKeyRef: {name: {{ $root.Values.redis.existingSecret }}, key: {{ $root.Values.redis.key }}}
      # What the process sees by itself are the node's cores, not its share of them.
      - name: CLICV2_THREADS
        valueFrom:
          resourceFieldRef: {resource: limits.cpu}
      {{- if eq $component "worker" }}
      - name: CLICV2_TRITON_URL
        value: {{ include "clicv2.name" $root }}-triton:8001
      {{- if not $root.Values.triton.gpu }}
      # A CPU that others use too is slow, not dead.
      - name: CLICV2_BACKEND_STALL_S
        value: "3"
      {{- end }}
      {{- end }}
    resources: {{- toYaml $own.resources | nindent 6 }}
    # Ready is proved by an answer; alive is the process alone, for restarting it heals no other.
    readinessProbe:
      httpGet: {path: /readyz, port: http}
      periodSeconds: 2
      timeoutSeconds: 3
      failureThreshold: 2
    livenessProbe:
      httpGet: {path: /livez, port: http}
      periodSeconds: 5
      timeoutSeconds: 3
      failureThreshold: 3
    startupProbe:
      httpGet: {path: /livez, port: http}
      periodSeconds: 1
      timeoutSeconds: 3
      failureThreshold: 60
    volumeMounts:
      - {name: tmp, mountPath: /tmp}
      {{- if $root.Values.modelRepository.existingClaim }}
      - {name: models, mountPath: /models, readOnly: true}
      {{- end }}
volumes:
  - name: tmp
    emptyDir: {sizeLimit: 16Mi}
  {{- with $root.Values.modelRepository.existingClaim }}
  - name: models
    persistentVolumeClaim: {claimName: {{ . }}, readOnly: true}
  {{- end }}
{{- end }}

{{- define "clicv2.annotations" -}}
{{- $root := index . 0 -}}
# A pod reads its settings once, so changed settings are new pods.
checksum/settings: {{ $root.Values.settings | toJson | sha256sum }}
{{ include "clicv2.scraped" . }}
{{- end }}

{{/* For a Prometheus that goes by annotations; nothing where monitors tell, or all would be counted twice. */}}
{{- define "clicv2.scraped" -}}
{{- if not (index . 0).Values.monitoring.enabled -}}
prometheus.io/scrape: "true"
prometheus.io/port: {{ index . 1 | quote }}
{{- end }}
{{- end }}

{{- define "clicv2.disruption-budget" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ include "clicv2.name" $root }}-{{ $component }}
  labels: {{- include "clicv2.labels" . | nindent 4 }}
spec:
  {{- toYaml (index $root.Values $component).disruptionBudget | nindent 2 }}
  # A pod that is not ready serves nobody, so it may be evicted at any time.
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels: {{- include "clicv2.selector" . | nindent 6 }}
{{- end }}
